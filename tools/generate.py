"""Text from a trained model: python tools/generate.py --load RUN --prompt "Once upon a time" --max-new-tokens 100."""

from megatron.basics.errors import exit_on_user_error
from megatron.cli.generate import main

if __name__ == "__main__":
    exit_on_user_error(main)
