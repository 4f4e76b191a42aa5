"""What an objective is: a pure function from a window to neutral examples."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np

from megatron.records.example import Example
from megatron.records.window import Window


class Objective(Protocol):
    """Says what is given and what is to be predicted; knows tokens and nothing of architectures.

    produces: the type of its examples; an architecture that `accepts` it can be trained with it. uses_randomness:
    whether two calls with the same window may differ; where not, no generator is made for it.
    """

    produces: ClassVar[type]
    uses_randomness: ClassVar[bool]

    def __call__(self, window: Window, rng: np.random.Generator | None) -> tuple[Example, ...]:
        """The examples of a window. rng: a function of (seed, sample index), None without `uses_randomness`."""

    def window_length(self, seq_length: int) -> int:
        """Tokens of a window that fills a row of `seq_length` positions."""

    def stride(self, seq_length: int) -> int:
        """Tokens between the beginnings of two windows."""
