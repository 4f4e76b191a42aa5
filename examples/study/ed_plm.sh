#!/bin/bash
# What: ED:PLM, an encoder-decoder that goes on from random prefixes, two texts folded into each row
source "$(dirname "${BASH_SOURCE[0]}")/cell.sh"

start pretrain_t5.py encoder_decoder \
    --objective prefix_lm --seq-length "$ROW" --decoder-seq-length "$ROW" --global-batch-size $((BATCH / 2)) "$@"
