"""How much of an example a row can hold."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self


class Size(NamedTuple):
    """Tokens of examples, end tokens counted. total: inputs and targets together, at most their sum.

    Where a size is the most that some examples take, one may have the most inputs and another the most targets.
    """

    inputs: int
    targets: int
    total: int

    @classmethod
    def of(cls, inputs: int, targets: int) -> Self:
        """The size of examples that are known to have so many of both."""
        return cls(inputs, targets, inputs + targets)


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

    @property
    def is_split(self) -> bool:
        """Whether inputs and targets have rows of their own."""
        return self.inputs + self.targets == self.total

    def holds(self, size: Size) -> bool:
        """Whether examples of this size fit."""
        return size.inputs <= self.inputs and size.targets <= self.targets and size.total <= self.total

    def longest(self, size: Callable[[int], Size]) -> int:
        """The most tokens, at least 1, whose examples fit.

        size: of the examples of two or more tokens, never smaller of more tokens, and at least the number of tokens.
        """

        def overflows(num_tokens: int) -> bool:
            return not self.holds(size(num_tokens))

        return bisect.bisect_left(range(2, 2 * self.total), True, key=overflows) + 1
