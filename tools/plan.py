"""What a run would take on each layout: python tools/plan.py --devices 64 --global-batch-size 1024 ..."""

from megatron.basics.errors import exit_on_user_error
from megatron.cli.plan import main

if __name__ == "__main__":
    exit_on_user_error(main)
