#!/bin/bash
# What:     causal decoder of 13B parameters on one node, TP 4 x PP 2
# Hardware: 8 NVIDIA GPUs in one node
# Memory:   about 38 GB per GPU (vocabulary of 50,257)
# Time:     not measured
#
# Batch, rate and shape follow table 2.1 of Brown et al. 2020, the length 20 tokens a parameter (Hoffmann et al. 2022).
# 40 layers on 2 ranks in chunks of 10: interleaving halves the idle time of the pipeline.
# Start it again to resume: SAVE holds the run. More flags can follow, e.g. --train-iters 100.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DATA=${DATA:?set DATA to a token file without .bin, e.g. data/corpus_text_document}
TOKENIZER=${TOKENIZER:?set TOKENIZER to the SentencePiece model that made the token file}
SAVE=${SAVE:-runs/gpt-13b}

exec torchrun --standalone --nproc-per-node 8 "$ROOT/pretrain_gpt.py" \
    --num-layers 40 --hidden-size 5120 --num-attention-heads 40 --seq-length 2048 \
    --tensor-model-parallel-size 4 --sequence-parallel \
    --pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 2 \
    --overlap-grad-reduce --overlap-param-gather \
    --micro-batch-size 2 --global-batch-size 1024 --train-iters 124000 \
    --lr 1.0e-4 --min-lr 1.0e-5 --lr-warmup-iters 179 --lr-decay-style cosine --bf16 \
    --data-path "$DATA" --tokenizer-model "$TOKENIZER" \
    --save "$SAVE" --save-interval 500 --keep-last 3 --async-save \
    --eval-interval 500 --eval-iters 20 \
    "$@"
