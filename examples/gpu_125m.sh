#!/bin/bash
# What:     causal decoder of 125M parameters on one GPU
# Hardware: 1 NVIDIA GPU
# Memory:   about 12 GB per GPU (vocabulary of 50,257)
# Time:     not measured
#
# Batch, rate and shape follow table 2.1 of Brown et al. 2020, the length 20 tokens a parameter (Hoffmann et al. 2022).
# Start it again to resume: SAVE holds the run. More flags can follow, e.g. --train-iters 100.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DATA=${DATA:?set DATA to a token file without .bin, e.g. data/corpus_text_document}
TOKENIZER=${TOKENIZER:?set TOKENIZER to the SentencePiece model that made the token file}
SAVE=${SAVE:-runs/gpt-125m}

exec torchrun --standalone --nproc-per-node 1 "$ROOT/pretrain_gpt.py" \
    --num-layers 12 --hidden-size 768 --num-attention-heads 12 --seq-length 2048 \
    --micro-batch-size 8 --global-batch-size 256 --train-iters 4800 \
    --lr 6.0e-4 --min-lr 6.0e-5 --lr-warmup-iters 715 --lr-decay-style cosine --bf16 \
    --data-path "$DATA" --tokenizer-model "$TOKENIZER" \
    --save "$SAVE" --save-interval 500 --keep-last 3 --async-save \
    --eval-interval 500 --eval-iters 20 \
    "$@"
