"""Which lengths go together in rows: bin packing over how many pieces there are of each length.

For pieces of text, of which one length says all, so that any number of them is planned at once. Examples with inputs
and targets are packed one by one, see `fill_rows`, which takes time and memory with their number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNFIT = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Filling:
    """`copies` pieces of `length` tokens in each row of a group; those of its first row are number `first` and on."""

    length: int
    copies: int
    first: int


@dataclass(frozen=True)
class RowGroup:
    """`rows` rows that hold the same lengths."""

    rows: int
    fillings: tuple[Filling, ...] = ()

    def split(self, rows: int) -> tuple[RowGroup, RowGroup]:
        """The first `rows` rows, and the others."""
        rest = tuple(Filling(one.length, one.copies, one.first + one.copies * rows) for one in self.fillings)
        return RowGroup(rows, self.fillings), RowGroup(self.rows - rows, rest)


class RowPlan:
    """Rows filled with pieces, those of each length numbered from 0, by best fit decreasing.

    counts: int64 [n + 1], pieces of each length, none of length 0. costs: int64 [n + 1, k], what a piece of each length
    takes of each of k capacities, non-decreasing; capacity: int64 [k], what a row has. Longest pieces come first, each
    to the rows with the least space that still take it, by the last capacity. Pieces of one length are dealt with at
    once, so that time goes not with the number of pieces but with the square of that of different lengths: for any
    number of pieces 0.1 seconds with 1,024 lengths and up to 1 with 4,096. Memory goes with the number of lengths.

    Raises ValueError when a piece does not fit an empty row. Source: Ding et al. 2024, "Fewer Truncations Improve
    Language Modeling", section 3; here with several capacities.
    """

    def __init__(self, counts: NDArray[np.int64], costs: NDArray[np.int64], capacity: NDArray[np.int64]) -> None:
        lengths = np.flatnonzero(counts)[::-1]
        if (costs[lengths] > capacity).any():
            raise ValueError(f"a piece of {lengths[0]} tokens takes more than a row has")
        self.groups = _filled(counts, costs, capacity, lengths)
        self._ends = np.cumsum([group.rows for group in self.groups]).tolist()
        self.num_rows: int = self._ends[-1] if self._ends else 0
        # Share of each capacity that is taken, 0 to 1: float64 [k].
        self.fullness = counts @ costs / (capacity * max(self.num_rows, 1))

    def pieces(self, row: int) -> Iterator[tuple[int, int]]:
        """(length, number) of each piece in a row, longest first. O(log groups + pieces)."""
        place = bisect_right(self._ends, row)
        group = self.groups[place]
        row -= self._ends[place] - group.rows
        for filling in group.fillings:
            first = filling.first + filling.copies * row
            for number in range(first, first + filling.copies):
                yield filling.length, number


def _filled(
    counts: NDArray[np.int64], costs: NDArray[np.int64], capacity: NDArray[np.int64], lengths: NDArray[np.int64]
) -> list[RowGroup]:
    groups: list[RowGroup] = []
    free = np.empty((1024, len(capacity)), np.int64)  # what a row of each group has left
    for length in lengths.tolist():
        cost, placed, left = costs[length], 0, int(counts[length])
        while left:
            if len(groups) + 2 > len(free):
                free = np.concatenate([free, np.empty_like(free)])
            space = free[: len(groups)]
            waste = np.where((space >= cost).all(axis=1), space[:, -1], UNFIT)
            place = int(waste.argmin()) if len(groups) else 0
            if not len(groups) or waste[place] == UNFIT:
                place = len(groups)
                groups.append(RowGroup(-(-left // _copies(capacity, cost))))
                free[place] = capacity
            copies = min(_copies(free[place], cost), left)
            rows = min(groups[place].rows, left // copies)
            if rows < groups[place].rows:
                groups[place], rest = groups[place].split(rows)
                free[len(groups)] = free[place]
                groups.append(rest)
            groups[place] = RowGroup(rows, (*groups[place].fillings, Filling(length, copies, placed)))
            free[place] -= copies * cost
            placed, left = placed + copies * rows, left - copies * rows
    return groups


def _copies(space: NDArray[np.int64], cost: NDArray[np.int64]) -> int:
    """How many pieces of a cost fit a space; a piece takes something of the last capacity."""
    taken = cost > 0
    return int((space[taken] // cost[taken]).min())
