"""Pretrain an encoder-decoder: torchrun --nproc-per-node 4 pretrain_t5.py --pipeline-model-parallel-size 2 ..."""

from megatron.cli.pretrain import main

if __name__ == "__main__":
    main(architecture="encoder_decoder", objective="span_corruption")
