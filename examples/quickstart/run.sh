#!/bin/bash
# What:     text to tokens, a causal decoder of 2.6M parameters on two processes, a stop, a resume on another layout, a
#           picture of the loss, a sample, an export to Hugging Face with its verdict, a zero-shot score: everything that
#           `make quickstart` shows
# Hardware: 2 CPU cores; no GPU, no network
# Memory:   about 0.7 GB per process
# Time:     3 min 37 s after set-up, on 2 cores
#
# Everything lands in quickstart_run/, or in the folder that is the first argument. Each call trains afresh: a run
# folder that is there already is replaced. STEPS sets the length (default 480).
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
OUT=${1:-$ROOT/quickstart_run}
STEPS=${STEPS:-480}
FIRST_PART=$((STEPS * 5 / 8))
export PATH="$ROOT/.venv/bin:$PATH" PYTHONPATH="$ROOT" OMP_NUM_THREADS=1

step() {
    printf '\n== %s\n' "$1"
}

pretrain() {
    torchrun --standalone --nproc-per-node 2 "$ROOT/pretrain_gpt.py" \
        --device cpu \
        --num-layers 4 --hidden-size 192 --num-attention-heads 4 --seq-length 256 \
        --position-embedding-type rope --normalization RMSNorm --activation swiglu --disable-bias-linear \
        --global-batch-size 4 --lr 4e-3 --min-lr 4e-4 --lr-warmup-iters $((STEPS / 16)) --lr-decay-iters "$STEPS" \
        --train-data-path "$OUT/train_text_document" --valid-data-path "$OUT/valid_text_document" \
        --tokenizer-model "$OUT/tokenizer.model" \
        --save "$OUT/run" --eval-interval 60 --eval-iters 16 --log-interval 30 "$@"
}

mkdir -p "$OUT"
rm -rf "$OUT/run" "$OUT/export"

step "1 of 10: a corpus from the documentation inside this Python"
python "$ROOT/examples/quickstart/stdlib_corpus.py" --output-folder "$OUT/corpus"

step "2 of 10: a vocabulary of 4,096 tokens"
python "$ROOT/tools/train_tokenizer.py" --input "$OUT/corpus/train.jsonl" \
    --output-prefix "$OUT/tokenizer" --vocab-size 4096

step "3 of 10: text to tokens"
for part in train valid; do
    python "$ROOT/tools/preprocess_data.py" --input "$OUT/corpus/$part.jsonl" --output-prefix "$OUT/$part" \
        --tokenizer-model "$OUT/tokenizer.model" --append-eod --workers 2
done

step "4 of 10: training to step $FIRST_PART, each layer shared by two processes (tensor parallel)"
pretrain --tensor-model-parallel-size 2 --micro-batch-size 4 --train-iters "$FIRST_PART"

step "5 of 10: the same run goes on to step $STEPS, now as two copies (data parallel)"
pretrain --tensor-model-parallel-size 1 --micro-batch-size 2 --train-iters "$STEPS"

step "6 of 10: a picture of the loss"
python "$ROOT/tools/plot_loss.py" --load "$OUT/run" --output "$OUT/loss.png"

step "7 of 10: what the model writes"
python "$ROOT/tools/generate.py" --load "$OUT/run" --device cpu --max-new-tokens 60 --temperature 0.7 \
    --prompt "Return a new" "The following methods" | tee "$OUT/sample.txt"

step "8 of 10: the model as a Hugging Face folder, and whether transformers computes the same"
python "$ROOT/tools/convert_checkpoint.py" to-hf --load "$OUT/run" --save "$OUT/export"

step "9 of 10: a multiple-choice task from the held-out text: which order of the words is right?"
python "$ROOT/examples/quickstart/word_order.py" --input "$OUT/corpus/valid.jsonl" \
    --output-folder "$OUT/tasks/word_order"

step "10 of 10: a zero-shot score of the model on it, beside guessing"
python "$ROOT/tools/evaluate.py" --load "$OUT/run" --device cpu --tasks word_order \
    --include-path "$ROOT/examples/quickstart/tasks" --data-dir "$OUT/tasks" --output-path "$OUT/evaluation"

cat <<END

== Done. In $OUT:
   loss.png     training and validation loss, with the resume marked
   sample.txt   what the model wrote
   export/      the model for transformers (AutoModelForCausalLM), its card, verdict.json
   evaluation/  results.json as lm-eval writes it, a table and a chart of the score
   run/         checkpoints, metrics.jsonl, run.json, TensorBoard events (tensorboard --logdir $OUT/run/tensorboard)
   corpus/, tokenizer.model, *_text_document.bin and .idx
END
