"""Text to token files: python tools/preprocess_data.py --input a.jsonl --output-prefix a --tokenizer-model t.model."""

from megatron.basics.errors import exit_on_user_error
from megatron.cli.preprocess import main

if __name__ == "__main__":
    exit_on_user_error(main)
