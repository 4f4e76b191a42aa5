"""Finetune on prompted tasks: torchrun ... finetune_t0.py --load RUN --save RUN2 --to prefix_decoder --data-path ..."""

from megatron.cli.finetune import main

if __name__ == "__main__":
    main()
