#!/bin/bash
# What: CD:FLM, a causal decoder that predicts every token
source "$(dirname "${BASH_SOURCE[0]}")/cell.sh"

start pretrain_gpt.py decoder \
    --objective full_lm --seq-length "$ROW" "$@"
