#!/bin/bash
# What:     how much sooner an adapted model gets where one from scratch ends (Wang et al. 2022, section 5): a causal
#           decoder by full LM and a prefix decoder by span corruption from scratch, each then adapted to the other
# Hardware: 2 CPU cores; no GPU, no network
# Memory:   about 0.7 GB per process
# Time:     9 minutes on 2 cores
#
# Everything lands in adaptation_speed_run/, or in the folder that is the first argument. Start it again to resume.
# STEPS sets the length of the runs from scratch (default 300).
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
OUT=${1:-$ROOT/adaptation_speed_run}
STEPS=${STEPS:-300}
export PATH="$ROOT/.venv/bin:$PATH" PYTHONPATH="$ROOT" OMP_NUM_THREADS=1

step() {
    printf '\n== %s\n' "$1"
}

preprocess() {
    python "$ROOT/tools/preprocess_data.py" --input "$OUT/corpus/$1.jsonl" --tokenizer-model "$OUT/tokenizer.model" \
        --workers 2 "${@:2}"
}

train() {
    torchrun --standalone --nproc-per-node 2 "$ROOT/$1" --device cpu \
        --micro-batch-size 4 --global-batch-size 8 --eval-interval 15 --eval-iters 8 --log-interval 100 "${@:2}"
}

pretrain() {
    train "$1" --num-layers 4 --hidden-size 128 --num-attention-heads 4 --seq-length 256 --train-iters "$STEPS" \
        --position-embedding-type rope --normalization RMSNorm --activation swiglu --disable-bias-linear \
        "${RATE[@]}" --tokenizer-model "$OUT/tokenizer.model" "${@:2}"
}

# The rate of the study's adaptations goes on where it was; --train-iters counts the steps of the source, too.
adapt() {
    train adapt.py --train-iters $((STEPS + $1)) "${@:2}"
}

RATE=(--lr 4e-3 --lr-decay-style inverse-square-root --lr-warmup-iters $((STEPS / 10)))
# Full LM learns where a text ends; span corruption reads joined texts without end tokens, as the study's does.
ENDED=(--train-data-path "$OUT/train_ended_text_document" --valid-data-path "$OUT/valid_ended_text_document")
JOINED=(--train-data-path "$OUT/train_joined_text_document" --valid-data-path "$OUT/valid_joined_text_document")

mkdir -p "$OUT"

step "1 of 6: a corpus from the documentation inside this Python, as tokens"
if [ ! -f "$OUT/valid_joined_text_document.idx" ]; then
    python "$ROOT/examples/quickstart/stdlib_corpus.py" --output-folder "$OUT/corpus"
    python "$ROOT/tools/train_tokenizer.py" --input "$OUT/corpus/train.jsonl" \
        --output-prefix "$OUT/tokenizer" --vocab-size 2048
    for part in train valid; do
        preprocess "$part" --output-prefix "$OUT/${part}_ended" --append-eod
        preprocess "$part" --output-prefix "$OUT/${part}_joined"
    done
fi

step "2 of 6: a causal decoder by full LM, from scratch"
pretrain pretrain_gpt.py --objective full_lm "${ENDED[@]}" --save "$OUT/CD:FLM"

step "3 of 6: a prefix decoder by span corruption, from scratch"
pretrain pretrain_prefix_lm.py --objective span_corruption "${JOINED[@]}" --save "$OUT/ND:MLM"

step "4 of 6: non-causal adaptation (NC-A): the causal decoder goes on as a prefix decoder by span corruption"
adapt $((2 * STEPS / 3)) --load "$OUT/CD:FLM" --save "$OUT/NC-A" --to prefix_decoder \
    --objective span_corruption "${JOINED[@]}"

step "5 of 6: language modelling adaptation (LM-A): the prefix decoder goes on as a causal decoder by full LM"
adapt $((3 * STEPS / 2)) --load "$OUT/ND:MLM" --save "$OUT/LM-A" --to causal_decoder --objective full_lm "${ENDED[@]}"

step "6 of 6: tokens to the final validation loss of the run from scratch"
python "$ROOT/tools/adaptation_speed.py" \
    --scratch "$OUT/ND:MLM" "$OUT/CD:FLM" --adapted "$OUT/NC-A" "$OUT/LM-A" | tee "$OUT/table.txt"
