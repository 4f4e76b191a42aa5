#!/bin/bash
# What: ND:PLM, a prefix decoder that goes on from random prefixes
source "$(dirname "${BASH_SOURCE[0]}")/cell.sh"

start pretrain_prefix_lm.py decoder \
    --objective prefix_lm --seq-length "$ROW" "$@"
