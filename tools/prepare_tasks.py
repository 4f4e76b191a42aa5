"""Data sets to prompts: python tools/prepare_tasks.py --mixture t0 --templates T --output-folder tasks ..."""

from megatron.basics.errors import exit_on_user_error
from megatron.cli.prepare_tasks import main

if __name__ == "__main__":
    exit_on_user_error(main)
