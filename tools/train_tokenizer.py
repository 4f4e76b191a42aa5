"""Learn a vocabulary from text: python tools/train_tokenizer.py --input a.jsonl --output-prefix t --vocab-size 8192."""

from megatron.basics.errors import exit_on_user_error
from megatron.cli.train_tokenizer import main

if __name__ == "__main__":
    exit_on_user_error(main)
