#!/bin/bash
# What:     causal decoder of 10M parameters on a laptop's CPU, two processes, DP 2
# Hardware: 2 CPU cores; no GPU
# Memory:   about 0.56 GB per process (vocabulary of 8,000)
# Time:     not measured
#
# A vocabulary of about 8,000 suits it. NUM_THREADS gives each process more than one core.
# Start it again to resume: SAVE holds the run. More flags can follow, e.g. --train-iters 100.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DATA=${DATA:?set DATA to a token file without .bin, e.g. data/corpus_text_document}
TOKENIZER=${TOKENIZER:?set TOKENIZER to the SentencePiece model that made the token file}
SAVE=${SAVE:-runs/gpt-10m}
export OMP_NUM_THREADS=${NUM_THREADS:-1}

exec torchrun --standalone --nproc-per-node 2 "$ROOT/pretrain_gpt.py" \
    --device cpu \
    --num-layers 8 --hidden-size 288 --num-attention-heads 6 --seq-length 512 \
    --micro-batch-size 4 --global-batch-size 16 --train-iters 2000 \
    --lr 1.0e-3 --min-lr 1.0e-4 --lr-warmup-iters 100 --lr-decay-style cosine \
    --data-path "$DATA" --tokenizer-model "$TOKENIZER" \
    --save "$SAVE" --save-interval 500 --keep-last 2 \
    --eval-interval 250 --eval-iters 4 \
    "$@"
