"""Tasks of lm-eval for a trained model: python tools/evaluate.py --load RUN --tasks arc_easy --data-dir DATA."""

from megatron.basics.errors import exit_on_user_error
from megatron.cli.evaluate import main

if __name__ == "__main__":
    exit_on_user_error(main)
