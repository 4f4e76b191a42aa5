"""--help and every configuration error come before torch is imported, in under a second of computing."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from megatron.basics.errors import exit_on_user_error
from megatron.cli.run_config import parse_pretrain
try:
    exit_on_user_error(lambda: parse_pretrain(
        sys.argv[1:], architecture="causal_decoder", default_objective="full_lm", legal_objectives=["full_lm"]))
finally:
    print("imported:", *sorted({"torch", "transformers", "megatron.core"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("words", "exit_code"), [("--help", 0), ("--num-layer 3 --lr x", 2), ("--config /nowhere.yaml", 2), ("", 2)]
)
def test_no_torch_on_the_way_to_an_answer(words: str, exit_code: int) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run([sys.executable, "-c", PROGRAM, *words.split()], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == exit_code
    assert ended.stdout.splitlines()[-1] == "imported:"
    assert "Traceback" not in ended.stderr
    computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert computed < 1.0
