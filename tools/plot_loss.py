"""A picture of training and validation loss: python tools/plot_loss.py --load RUN --output loss.png."""

from megatron.basics.errors import exit_on_user_error
from megatron.cli.plot_loss import main

if __name__ == "__main__":
    exit_on_user_error(main)
