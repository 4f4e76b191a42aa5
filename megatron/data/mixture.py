"""Examples of several data sets in one endless order, each by its weight, found by position and with no state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from megatron.basics.seeds import generator_for
from megatron.data.blend import BlendOrder
from megatron.data.permutation import Permutation

SHUFFLED_AT_ONCE = 1 << 15  # examples: dealing in less takes longer, and orders of as many take 128 KiB


class Mixture:
    """Of any first n examples each data set gives its share by weight, to within 2.

    Within a data set every example comes once before any comes twice, each time in another order, a function of (seed,
    data set, pass); with shuffled=False in that of its file. Only ratios of weights count: weights that are the
    numbers of examples, those of large data sets capped, are T0's proportional mixing (Raffel et al. 2020, section
    3.5.2).
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], *, seed: int, shuffled: bool = True) -> None:
        if min(sizes, default=0) < 1:
            raise ValueError(f"every data set needs an example, not {list(sizes)}")
        self._sizes = list(sizes)
        self._begins = np.cumsum([0, *sizes]).tolist()
        self._order = BlendOrder(weights)
        self._seed, self._shuffled = seed, shuffled
        # Of each data set that of the passes it is in: making it anew takes longer than using it.
        self._places = lru_cache(maxsize=2 * len(sizes))(self._shuffled_places)
        # Examples of the mixture until the data set that is used up first has been seen once.
        self.examples_per_pass = min(size * sum(weights) / weight for size, weight in zip(sizes, weights, strict=True))

    def take(self, first: int, end: int) -> NDArray[np.int64]:
        """The examples [first, end) of the mixture, by data set: int64 [end - first].

        They are numbered through all data sets, one behind the other.
        """
        before, after = self._order.given(first), self._order.given(end)
        parts = [
            part
            for number, bounds in enumerate(zip(before, after, strict=True))
            for part in self._of_data_set(number, *bounds)
        ]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _of_data_set(self, number: int, first: int, end: int) -> Iterator[NDArray[np.int64]]:
        """Examples [first, end) of one data set's own order, a group of passes at a time."""
        size = self._sizes[number]
        together = size * _passes_together(size)
        while first < end:
            group, place = divmod(first, together)
            count = min(together - place, end - first)
            if self._shuffled:
                taken = self._places(number, group)(place, count)
            else:
                taken = np.arange(place, place + count, dtype=np.int64) % size
            yield taken + self._begins[number]
            first += count

    def _shuffled_places(self, number: int, group: int) -> Callable[[int, int], NDArray[np.int64]]:
        """(place, count) -> the examples from a place of a group of passes on: int64 [count]."""
        size = self._sizes[number]
        passes = _passes_together(size)
        if passes == 1:
            order = Permutation(size, self._seed, "examples", number, group)
            return lambda place, count: order.take(np.arange(place, place + count, dtype=np.int64))
        draws = generator_for(self._seed, "examples", number, group).integers(0, 1 << 63, (passes, size))
        orders = np.argsort(draws, axis=1, kind="stable").astype(np.int32).ravel()
        return lambda place, count: orders[place : place + count].astype(np.int64)


def _passes_together(size: int) -> int:
    """Passes through a data set that are shuffled at once: through a small one many."""
    return max(1, SHUFFLED_AT_ONCE // size)
