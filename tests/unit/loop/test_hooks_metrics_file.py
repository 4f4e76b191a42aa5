"""metrics.jsonl stays one clean history: over restarts, SIGKILL in the middle of a line, and a full disk."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from megatron.loop.hooks.metrics_file import FILE_NAME, MetricsFileHook, cut_after
from tests.unit.loop.hook_reports import facts, setup, step_report, validation_report


def start(folder: Path, iteration: int = 0, is_main: bool = True) -> MetricsFileHook:
    hook = MetricsFileHook.for_run(setup(folder))
    assert hook is not None
    hook.on_start(facts(folder, iteration, is_main))
    return hook


def history(folder: Path) -> list[dict[str, Any]]:
    text = (folder / FILE_NAME).read_text()
    assert text.endswith("\n") or not text
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def iterations(folder: Path) -> list[int]:
    return [line["iteration"] for line in history(folder)]


def test_one_object_a_step_with_the_promised_names(tmp_path: Path) -> None:
    hook = start(tmp_path / "run")
    hook.on_step(step_report(1))
    hook.on_validation(validation_report(1))
    step, validation = history(tmp_path / "run")  # before on_end: nothing waits in a buffer
    hook.on_end()
    assert step["lm loss"] == 10.0
    assert {
        *("iteration", "consumed_samples", "consumed_tokens", "loss_tokens", "learning-rate", "grad-norm"),
        *("iteration-time", "tokens-per-second"),
    } <= step.keys()
    assert validation["lm loss validation"] == 2.0


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    hook = start(tmp_path, is_main=False)
    hook.on_step(step_report(1))
    hook.on_end()
    assert list(tmp_path.iterdir()) == []


def test_a_validation_that_is_owed_stands_there_once(tmp_path: Path) -> None:
    """Whatever became of the start that made up for it first."""
    hook = start(tmp_path)
    hook.on_step(step_report(1))
    hook.on_end()
    for _ in range(2):
        hook = MetricsFileHook(tmp_path / FILE_NAME)
        hook.on_start(facts(tmp_path, 1, owes_validation=True))
        hook.on_validation(validation_report(1))
        hook.on_end()
    assert ["validation-time" in line for line in history(tmp_path)] == [False, True]
    start(tmp_path, 1).on_end()
    assert len(history(tmp_path)) == 2


def test_a_resumed_run_cuts_what_it_does_again(tmp_path: Path) -> None:
    hook = start(tmp_path)
    for iteration in range(1, 8):
        hook.on_step(step_report(iteration))
        if iteration == 4:
            hook.on_validation(validation_report(4))
    hook.on_end()
    hook = start(tmp_path, iteration=4)
    assert iterations(tmp_path) == [1, 2, 3, 4, 4]
    hook.on_step(step_report(5))
    hook.on_end()
    assert iterations(tmp_path) == [1, 2, 3, 4, 4, 5]
    start(tmp_path, iteration=0).on_end()
    assert iterations(tmp_path) == []


@pytest.mark.parametrize(
    "torn", [b"{", b'{"iteration": 3', b'{"iteration": 3, "lm loss": 1.0}', b"\x00\x00", b"\n", b"3\n"]
)
def test_a_torn_last_line_is_dropped(tmp_path: Path, torn: bytes) -> None:
    hook = start(tmp_path)
    hook.on_step(step_report(1))
    hook.on_step(step_report(2))
    hook.on_end()
    with open(tmp_path / FILE_NAME, "ab") as file:
        file.write(torn)
    hook = start(tmp_path, iteration=9)
    hook.on_step(step_report(10))
    hook.on_end()
    assert iterations(tmp_path) == [1, 2, 10]


def test_an_untouched_history_is_not_rewritten(tmp_path: Path) -> None:
    hook = start(tmp_path)
    hook.on_step(step_report(1))
    hook.on_end()
    before = os.stat(tmp_path / FILE_NAME).st_ino
    cut_after(tmp_path / FILE_NAME, 1)
    assert os.stat(tmp_path / FILE_NAME).st_ino == before


def test_values_that_are_not_finite_are_null(tmp_path: Path) -> None:
    hook = start(tmp_path)
    hook.on_step(step_report(1, grad_norm=math.nan, losses={"lm loss": math.inf}, nonfinite="lm loss"))
    hook.on_end()
    (line,) = history(tmp_path)
    assert (line["grad-norm"], line["lm loss"], line["nonfinite"]) == (None, None, "lm loss")


def test_a_full_disk_stops_nothing_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = start(tmp_path)
    hook.on_step(step_report(1))
    write = os.write
    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "write", lambda descriptor, text: write(descriptor, text[:10]))  # then nothing fits
        hook.on_step(step_report(2))
    assert iterations(tmp_path) == [1]

    def no_space(descriptor: int, text: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "write", no_space)
        hook.on_step(step_report(3))
    assert iterations(tmp_path) == [1]
    hook.on_step(step_report(4))
    hook.on_end()
    assert iterations(tmp_path) == [1, 2, 3, 4]
    assert capsys.readouterr().err.count("warning:") == 1


WRITER = """
import sys
from pathlib import Path
from tests.unit.loop.hook_reports import facts, setup, step_report
from megatron.loop.hooks.metrics_file import MetricsFileHook
folder, first = Path(sys.argv[1]), int(sys.argv[2])
hook = MetricsFileHook.for_run(setup(folder))
hook.on_start(facts(folder, first))
print("started", flush=True)
for iteration in range(first + 1, 10**9):
    hook.on_step(step_report(iteration))
"""


def test_killed_at_random_moments_the_history_has_no_gap(tmp_path: Path) -> None:
    random.seed(0)
    done = 0
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(done)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": "."},
        )
        assert writer.stdout is not None and writer.stdout.readline() == b"started\n"
        time.sleep(random.uniform(0.02, 0.2))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        cut_after(tmp_path / FILE_NAME, 10**9)
        done = iterations(tmp_path)[-1] // 2
    written = iterations(tmp_path)
    assert written == list(range(1, len(written) + 1))
