"""How much of an example a row can hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """Tokens that fit a row, end tokens counted: inputs, targets and both together must fit.

    A decoder has one stream for both, an encoder-decoder one for each. overlap: tokens at the end of a window of
    running text with which the next window begins, because they are predicted here and predict there.
    """

    inputs: int
    targets: int
    total: int
    overlap: int = 0

    def holds(self, inputs: int, targets: int) -> bool:
        """Whether inputs and targets of these lengths fit."""
        return inputs <= self.inputs and targets <= self.targets and inputs + targets <= self.total
