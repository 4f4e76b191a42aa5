"""Tells about documents that are left out: the first ones as they come, the others by number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from megatron.basics.errors import UserError
from megatron.basics.progress import Progress
from megatron.data.documents import Fault

FAULTS_SHOWN = 20


class FaultReport:
    """Prints the first FAULTS_SHOWN faults beside the bar, and when its block ends how many there were of each kind."""

    def __init__(self, bar: Progress, strict: bool = False) -> None:
        self._bar, self._strict = bar, strict
        self._by_reason: Counter[str] = Counter()

    def __enter__(self) -> FaultReport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.count > FAULTS_SHOWN:
            self._bar.write(f"warning: left out {self.count:,} documents: {self.reasons()}")

    @property
    def count(self) -> int:
        """Documents left out so far."""
        return self._by_reason.total()

    def reasons(self) -> str:
        """`12 x not JSON, 3 x not UTF-8`."""
        return ", ".join(f"{count:,} x {reason}" for reason, count in self._by_reason.most_common())

    def add(self, faults: Sequence[Fault]) -> None:
        """Take faults in file order. Raises UserError for the first one when nothing may be left out."""
        if faults and self._strict:
            raise UserError(f"{faults[0]}; nothing was written. Mend it, or go on without it by leaving out --strict.")
        for fault in faults:
            if self.count < FAULTS_SHOWN:
                self._bar.write(f"warning: {fault}; left out")
            self._by_reason[fault.reason.split(" (")[0]] += 1  # the brackets hold what differs from line to line
