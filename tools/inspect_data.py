"""What a model is fed, as text: python tools/inspect_data.py --load RUN --samples 2, or with the flags of a run."""

from megatron.basics.errors import exit_on_user_error
from megatron.cli.inspect_data import main

if __name__ == "__main__":
    exit_on_user_error(main)
