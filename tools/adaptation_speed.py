"""How much sooner adapted runs get there: python tools/adaptation_speed.py --scratch RUN ... --adapted RUN ..."""

from megatron.basics.errors import exit_on_user_error
from megatron.cli.adaptation_speed import main

if __name__ == "__main__":
    exit_on_user_error(main)
