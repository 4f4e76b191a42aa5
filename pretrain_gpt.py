"""Pretrain a causal decoder: torchrun --nproc-per-node 4 pretrain_gpt.py --tensor-model-parallel-size 2 ..."""

from megatron.cli.pretrain import main

if __name__ == "__main__":
    main(architecture="causal_decoder", objective="full_lm")
