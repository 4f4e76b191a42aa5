"""Random numbers that Python and C++ compute alike: word k of a seed is a formula, and nothing is kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = 2**64 - 1


class Draws:
    """The words of SplitMix64 that belong to a seed, one after another (Steele et al. 2014, figure 16).

    csrc/corruption/draws.h computes the same words. Making one costs nothing, so every sample has its own.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed & _WORD
        self._taken = 0

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next `count` words, uint64 [count], each uniform over all 64 bits."""
        numbers = np.arange(self._taken + 1, self._taken + count + 1, dtype=np.uint64)
        self._taken += count
        word = np.uint64(self.seed) + numbers * np.uint64(_GOLDEN)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return word ^ (word >> np.uint64(31))

    def below(self, bound: int) -> int:
        """A number from 0 to bound - 1, bound up to 2^32: the upper half of a word times the bound, over 2^32.

        No two numbers differ in probability by more than 2^-32.
        """
        return (self._word() >> 32) * bound >> 32

    def between(self, first: int, last: int) -> int:
        """A number from first to last, both included."""
        return first + self.below(last - first + 1)

    def unit(self) -> float:
        """A number in [0, 1), a multiple of 2^-53."""
        return (self._word() >> 11) * 2.0**-53

    def subset(self, total: int, count: int) -> NDArray[np.int64]:
        """`count` different numbers below `total`, int64 [count], ascending; every such set is equally likely.

        Floyd's way takes one word a number (Bentley and Floyd 1987). Those drawn twice give way to `last`, which no
        number before could be.
        """
        lasts = np.arange(total - count, total, dtype=np.uint64)
        drawn = (self.words(count) >> np.uint64(32)) * (lasts + np.uint64(1)) >> np.uint64(32)
        chosen: set[int] = set()
        for number, last in zip(drawn.tolist(), lasts.tolist(), strict=True):
            chosen.add(last if number in chosen else number)
        return np.array(sorted(chosen), np.int64)

    def hand_over(self, count: int) -> int:
        """A seed whose first `count` words are the next ones here; these are taken by it."""
        seed = (self.seed + self._taken * _GOLDEN) & _WORD
        self._taken += count
        return seed

    def _word(self) -> int:
        self._taken += 1
        word = (self.seed + self._taken * _GOLDEN) & _WORD
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _WORD
        word = (word ^ word >> 27) * 0x94D049BB133111EB & _WORD
        return word ^ word >> 31
