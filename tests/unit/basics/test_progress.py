"""Progress on a terminal and in a log."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from megatron.basics import progress as progress_module
from megatron.basics.progress import Progress, progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_a_log_gets_a_line_now_and_then_with_rate_and_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("documents", 100, "doc") as bar:
        for _ in range(40):
            clock.now += 1.0
            bar.advance(2, note="note")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "documents: 30/100 doc, 2 doc/s, 35 s left note",
        "documents: 60/100 doc, 2 doc/s, 20 s left note",
    ]


def test_work_of_an_earlier_start_counts_but_not_for_the_rate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("training", 100, "step", already_done=50)
    clock.now += 20.0
    bar.advance(10)
    assert capsys.readouterr().err == "training: 60/100 step, 0.5 step/s, 80 s left\n"


def test_an_unknown_total(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("lines", None, "line")
    clock.now += 20.0
    bar.advance(10)
    bar.write("a warning")
    assert capsys.readouterr().err == "lines: 10 line, 0.5 line/s\na warning\n"


WITH_A_BAR = """
import fcntl, struct, sys, termios
fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", int(sys.argv[1]), int(sys.argv[2]), 0, 0))
from megatron.basics.progress import Progress
bar = Progress("training", 4, "step")
bar.advance(4, note="loss 3")
bar.close()
"""


@pytest.mark.parametrize("size", [(0, 0), (24, 0), (24, 60)])
def test_a_terminal_of_any_size_gets_a_bar(size: tuple[int, int]) -> None:
    """Some terminals say that they have no columns."""
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    leader, terminal = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", WITH_A_BAR, *map(str, size)], stderr=terminal, env=environment, check=True, timeout=60
    )
    os.close(terminal)
    shown = os.read(leader, 10_000).decode()
    os.close(leader)
    assert "4/4" in shown
    assert max(len(line) for line in re.split("[\r\n]+", shown)) <= (size[1] or 80)


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bar = Progress("training", 4, "step", already_done=2)
    bar.advance(2, note="loss 3")
    bar.write("a warning")
    bar.close()
    bar.close()
    shown = capsys.readouterr().err
    assert "4/4" in shown and "loss 3" in shown and "a warning\n" in shown
