"""SIGTERM, SIGUSR1 and SIGINT ask the run to save and stop; a second one ends it at once."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# A terminal sends Ctrl-C to launcher and ranks alike and the launcher passes it on: one wish, two signals.
SECONDS_OF_ONE_WISH = 3.0


class StopSignal:
    """Remembers the first stop signal; the loop reads `received` at the end of each step."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._received_at = 0.0

    def install(self) -> None:
        """Take over the stop signals of this process. Must run in the main thread."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is not None and now - self._received_at > SECONDS_OF_ONE_WISH:
            os._exit(128 + number)
        if self.received is None:
            self.received, self._received_at = signal.Signals(number), now


def ignore_stop_signals() -> None:
    """A run that is over ends by itself: torchrun tells the ranks that are a moment later than the first to stop."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
