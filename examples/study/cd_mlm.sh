#!/bin/bash
# What: CD:MLM, a causal decoder that fills in spans
source "$(dirname "${BASH_SOURCE[0]}")/cell.sh"

start pretrain_gpt.py decoder \
    --objective span_corruption --seq-length "$ROW" "$@"
