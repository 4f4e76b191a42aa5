"""Where a part of the check works: its device, its folder, its time, and the commands that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LINES_OF_A_FAILURE = 12


class PartFailed(Exception):
    """What went wrong in a part, for the table; the lines that it had by then stand."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the table: what was checked, what came out, and the figures behind it."""

    check: str
    outcome: str
    passed: bool = True
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """What a part is given. quick: toy sizes, to try the program itself; say: adds a line to the table."""

    device: str
    quick: bool
    folder: Path
    deadline: float
    say: Callable[[Line], None]

    @property
    def seconds_left(self) -> float:
        """Until this part has to be done."""
        return self.deadline - time.monotonic()

    def python(self, *arguments: str, name: str, environment: dict[str, str] | None = None) -> str:
        """Run this interpreter from the repository's root; see `run`."""
        return self.run([sys.executable, *arguments], name=name, environment=environment)

    def run(self, command: Sequence[str], *, name: str, environment: dict[str, str] | None = None) -> str:
        """The output of a command, which also stays in NAME.log. Raises PartFailed when it fails or takes too long.

        The command and everything that it started is killed when the time of the part is over.
        """
        log = self.folder / f"{name}.log"
        own = {**os.environ, "PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1", **(environment or {})}
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=own, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                code = process.wait(timeout=max(self.seconds_left, 1.0))
            except subprocess.TimeoutExpired:
                code = None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        text = log.read_text(encoding="utf-8", errors="replace")
        if code != 0:
            reason = "took longer than this part may" if code is None else f"ended with exit code {code}"
            raise PartFailed(f"{name} {reason}: {last_words(text)}")
        return text


def python_path() -> str:
    """The repository first, then what was there: a carried megatron-core stands on it."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def last_words(text: str) -> str:
    """The end of an output on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-LINES_OF_A_FAILURE:]) or "it said nothing"
