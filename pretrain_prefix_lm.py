"""Pretrain a prefix decoder: torchrun --nproc-per-node 4 pretrain_prefix_lm.py --tensor-model-parallel-size 2 ..."""

from megatron.cli.pretrain import main

if __name__ == "__main__":
    main(architecture="prefix_decoder", objective="prefix_lm")
