"""Examples of several data sets in one endless order, each by its weight, found by position and with no state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from megatron.data.blend import BlendOrder
from megatron.data.permutation import Permutation


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
        self._shuffled = shuffled
        # Of each data set that of the pass it is in: with hundreds of them making it anew takes longer than using it.
        self._permutation = lru_cache(maxsize=2 * len(sizes))(
            lambda number, turn: Permutation(sizes[number], seed, "examples", number, turn)
        )
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
        """Examples [first, end) of one data set's own order, a pass at a time."""
        size = self._sizes[number]
        while first < end:
            turn, place = divmod(first, size)
            places = np.arange(place, min(size, place + end - first), dtype=np.int64)
            if self._shuffled:
                places = self._permutation(number, turn).take(places)
            yield places + self._begins[number]
            first += len(places)
