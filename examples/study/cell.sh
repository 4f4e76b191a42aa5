# What the launchers of the study share: sizes, machines and inputs, from the environment. Sourced, not started.
#
# SIZE=laptop (default): two CPU cores. SIZE=paper: NODES nodes of 8 GPUs, started on each with the same HEAD_NODE.
# OPTIMIZER=adafactor (default, as the study) or adamw. DATA, TOKENIZER: inputs; SAVE: the run's folder.
set -euo pipefail

STUDY=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$STUDY/../.." && pwd)
CELL=$(basename "$0" .sh)
SIZE=${SIZE:-laptop}
DATA=${DATA:?set DATA to a token file without .bin, e.g. data/corpus_text_document}
TOKENIZER=${TOKENIZER:?set TOKENIZER to the SentencePiece model that made the token file}
SAVE=${SAVE:-runs/study-$SIZE/$CELL}

case $SIZE in
paper)
    INPUTS=512 TARGETS=114 BATCH=2048 PRETRAINED=131072 LM_ADAPTED=38912 NC_ADAPTED=39936 ADAMW_LR=2.0e-4
    HEAD_NODE=${HEAD_NODE:?set HEAD_NODE to HOST:PORT of one of the nodes, the same on all of them}
    MACHINES=(--nnodes "${NODES:-8}" --nproc-per-node 8)
    MACHINES+=(--rdzv-backend c10d --rdzv-endpoint "$HEAD_NODE" --rdzv-id "${RUN_NAME:-study-$CELL}")
    ;;
laptop)
    INPUTS=128 TARGETS=29 BATCH=32 PRETRAINED=600 LM_ADAPTED=200 NC_ADAPTED=200 ADAMW_LR=2.0e-3
    MACHINES=(--standalone --nproc-per-node 2)
    export OMP_NUM_THREADS=${NUM_THREADS:-1}
    ;;
*)
    echo "SIZE=$SIZE is not known; set it to laptop or paper." >&2
    exit 2
    ;;
esac
ROW=$((INPUTS + TARGETS)) # full and prefix LM have rows as long as span corruption's inputs and targets together

case ${OPTIMIZER:-adafactor} in
adafactor) OPTIMISATION=() ;;
adamw)
    # Adafactor makes a step of the same size whether the loss is the study's sum over tokens or our mean; AdamW's weight
    # decay and clipping do not, so that the study's rate means nothing to it. The rate falls as the study's does, without
    # an end, so that adaptations go on at the rate where their cell stopped.
    OPTIMISATION=(--optimizer adam --lr "$ADAMW_LR" --lr-decay-style inverse-square-root --lr-hold-iters 0)
    OPTIMISATION+=(--lr-warmup-iters $((PRETRAINED / 60)) --weight-decay 0.1 --clip-grad 1.0)
    ;;
*)
    echo "OPTIMIZER=$OPTIMIZER is not known; set it to adafactor or adamw." >&2
    exit 2
    ;;
esac

# start SCRIPT CONFIG FLAG...: the training script with the configuration of this size, then what the cell asks for.
start() {
    local script=$1 config=$2
    shift 2
    exec torchrun "${MACHINES[@]}" "$ROOT/$script" --config "$STUDY/$SIZE/$config.yaml" \
        --data-path "$DATA" --tokenizer-model "$TOKENIZER" --save "$SAVE" "${OPTIMISATION[@]}" "$@"
}
