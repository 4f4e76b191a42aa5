"""Checkpoints to Hugging Face folders and back: python tools/convert_checkpoint.py to-hf --load RUN --save FOLDER."""

from megatron.basics.errors import exit_on_user_error
from megatron.cli.convert import main

if __name__ == "__main__":
    exit_on_user_error(main)
