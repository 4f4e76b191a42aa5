#!/bin/bash
# What: NC-A, non-causal adaptation: the causal decoder of cd_flm goes on as a prefix decoder with span corruption
source "$(dirname "${BASH_SOURCE[0]}")/cell.sh"

LOAD=${LOAD:-runs/study-$SIZE/cd_flm}
start adapt.py decoder \
    --load "$LOAD" --to prefix_decoder --objective span_corruption --seq-length "$ROW" \
    --schedule continue --optimizer-state keep --train-iters $((PRETRAINED + NC_ADAPTED)) "$@"
