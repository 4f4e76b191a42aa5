"""Progress of long work: a bar with rate and time left on a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LOG_LINES = 15.0
COLUMNS_AND_ROWS = (80, 24)  # of a terminal that does not tell


class Progress:
    """Counts work of a known or unknown total and shows it on stderr."""

    def __init__(
        self, what: str, total: int | None, unit: str, unit_scale: bool = False, already_done: int = 0
    ) -> None:
        """`already_done` units of the total were done by an earlier start: they count, but not for the rate."""
        self.what, self.total, self.unit = what, total, unit
        self._unit_scale = unit_scale
        self.done = self._done_before = already_done
        self._started = self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=already_done, desc=what, unit=unit, unit_scale=unit_scale, **_terminal_size()
            )

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Add `amount` units; `note` stands behind the bar, e.g. the loss."""
        self.done += amount
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(amount)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LOG_LINES:
            self._last_line = time.monotonic()
            self._print_line(note)

    def write(self, line: str) -> None:
        """Print a line without tearing the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar. Calling it twice does no harm."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print_line(self, note: str) -> None:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = (self.done - self._done_before) / elapsed
        share = f"{self._shown(self.done)}/{self._shown(self.total)}" if self.total else self._shown(self.done)
        left = f", {(self.total - self.done) / rate:.0f} s left" if self.total and rate else ""
        print(
            f"{self.what}: {share} {self.unit}, {self._shown(rate)} {self.unit}/s{left} {note}".rstrip(),
            file=sys.stderr,
        )

    def _shown(self, number: float) -> str:
        """39.8M where units are scaled, else whole numbers as they are and others with four digits."""
        if self._unit_scale:
            return str(tqdm.format_sizeof(number))
        return str(number) if isinstance(number, int) else f"{number:.4g}"


def _terminal_size() -> dict[str, Any]:
    """Settings of tqdm: the bar follows the terminal. One that says it has 0 columns (serial lines, some containers)
    would show nothing.
    """
    with contextlib.suppress(OSError, ValueError):
        if os.get_terminal_size(sys.stderr.fileno()).columns == 0:
            columns, rows = COLUMNS_AND_ROWS
            return {"ncols": columns, "nrows": rows}
    return {"dynamic_ncols": True}


@contextlib.contextmanager
def progress(what: str, total: int | None, unit: str, unit_scale: bool = False) -> Iterator[Progress]:
    """`with progress("documents", 1000, "doc") as bar: bar.advance()`."""
    bar = Progress(what, total, unit, unit_scale)
    try:
        yield bar
    finally:
        bar.close()
