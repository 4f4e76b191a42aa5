"""Evaluations side by side: python tools/compare_evaluations.py --results A/results.json B/results.json."""

from megatron.basics.errors import exit_on_user_error
from megatron.cli.evaluation_report import main

if __name__ == "__main__":
    exit_on_user_error(main)
