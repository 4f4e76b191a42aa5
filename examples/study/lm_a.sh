#!/bin/bash
# What: LM-A, language-model adaptation: the prefix decoder of nd_mlm goes on as a causal decoder with full LM
source "$(dirname "${BASH_SOURCE[0]}")/cell.sh"

LOAD=${LOAD:-runs/study-$SIZE/nd_mlm}
start adapt.py decoder \
    --load "$LOAD" --to causal_decoder --objective full_lm --seq-length "$ROW" \
    --schedule continue --optimizer-state keep --train-iters $((PRETRAINED + LM_ADAPTED)) "$@"
