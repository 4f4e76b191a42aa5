#!/bin/bash
# What: ND:MLM, a prefix decoder that fills in spans
source "$(dirname "${BASH_SOURCE[0]}")/cell.sh"

start pretrain_prefix_lm.py decoder \
    --objective span_corruption --seq-length "$ROW" "$@"
