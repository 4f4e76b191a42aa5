#!/bin/bash
# What:     causal decoder of 2.7B parameters on one node, data parallel
# Hardware: 8 NVIDIA GPUs in one node
# Memory:   about 32 GB per GPU (vocabulary of 50,257)
# Time:     not measured
#
# Batch, rate and shape follow table 2.1 of Brown et al. 2020, the length 20 tokens a parameter (Hoffmann et al. 2022).
# Start it again to resume: SAVE holds the run. More flags can follow, e.g. --train-iters 100.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DATA=${DATA:?set DATA to a token file without .bin, e.g. data/corpus_text_document}
TOKENIZER=${TOKENIZER:?set TOKENIZER to the SentencePiece model that made the token file}
SAVE=${SAVE:-runs/gpt-2.7b}

exec torchrun --standalone --nproc-per-node 8 "$ROOT/pretrain_gpt.py" \
    --num-layers 32 --hidden-size 2560 --num-attention-heads 32 --seq-length 2048 \
    --overlap-grad-reduce --overlap-param-gather \
    --micro-batch-size 2 --global-batch-size 512 --train-iters 51500 \
    --lr 1.6e-4 --min-lr 1.6e-5 --lr-warmup-iters 358 --lr-decay-style cosine --bf16 \
    --data-path "$DATA" --tokenizer-model "$TOKENIZER" \
    --save "$SAVE" --save-interval 500 --keep-last 3 --async-save \
    --eval-interval 500 --eval-iters 20 \
    "$@"
