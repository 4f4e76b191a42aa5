#!/bin/bash
# What: ED:MLM, an encoder-decoder that fills in spans: T5
source "$(dirname "${BASH_SOURCE[0]}")/cell.sh"

start pretrain_t5.py encoder_decoder \
    --objective span_corruption --seq-length "$INPUTS" --decoder-seq-length "$TARGETS" --global-batch-size "$BATCH" "$@"
