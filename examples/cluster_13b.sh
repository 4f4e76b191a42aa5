#!/bin/bash
# What:     causal decoder of 13B parameters on four nodes, TP 8 x DP 4
# Hardware: 4 nodes of 8 NVIDIA GPUs
# Memory:   about 22 GB per GPU (vocabulary of 50,257)
# Time:     not measured
#
# Run it on every node with the same HEAD_NODE: the nodes find each other there. A node that is lost ends the run.
# DATA, TOKENIZER and SAVE must be on a disk that all nodes see.
# Batch, rate and shape follow table 2.1 of Brown et al. 2020, the length 20 tokens a parameter (Hoffmann et al. 2022).
# Start it again to resume: SAVE holds the run. More flags can follow, e.g. --train-iters 100.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DATA=${DATA:?set DATA to a token file without .bin, e.g. data/corpus_text_document}
TOKENIZER=${TOKENIZER:?set TOKENIZER to the SentencePiece model that made the token file}
SAVE=${SAVE:-runs/gpt-13b-cluster}
HEAD_NODE=${HEAD_NODE:?set HEAD_NODE to HOST:PORT of one of the nodes, the same on all of them}
RUN_NAME=${RUN_NAME:-gpt-13b}

exec torchrun --nnodes 4 --nproc-per-node 8 \
    --rdzv-backend c10d --rdzv-endpoint "$HEAD_NODE" --rdzv-id "$RUN_NAME" "$ROOT/pretrain_gpt.py" \
    --num-layers 40 --hidden-size 5120 --num-attention-heads 40 --seq-length 2048 \
    --tensor-model-parallel-size 8 --sequence-parallel \
    --overlap-grad-reduce --overlap-param-gather \
    --micro-batch-size 4 --global-batch-size 1024 --train-iters 124000 \
    --lr 1.0e-4 --min-lr 1.0e-5 --lr-warmup-iters 179 --lr-decay-style cosine --bf16 \
    --data-path "$DATA" --tokenizer-model "$TOKENIZER" \
    --save "$SAVE" --save-interval 500 --keep-last 3 --async-save \
    --eval-interval 500 --eval-iters 20 \
    "$@"
