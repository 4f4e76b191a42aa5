"""Which examples go together in rows: bin packing of single examples with one or two sizes.

The examples of a block have inputs and targets of their own lengths, and nearly as many pairs of lengths as there are
examples. `RowPlan`, whose time goes with the square of what differs, is for pieces of text of which one length says
all.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from megatron.basics.native_extension import native_extension

PACKING = ("megatron.data.packing_native", "packing", "plain Python")  # the extension, what it does, and its twin


def fill_rows(sizes: NDArray[np.int32], capacities: tuple[int, ...]) -> NDArray[np.int64]:
    """The row of each example, counted from 0 without gaps: best fit decreasing.

    sizes: int32 [n, k], what each example takes of each of k = 1 or 2 capacities. Examples come in the order of the
    larger share of a row that they take, largest first, those alike in their own order; each goes to the row with the
    least space that still takes it. Space is that of the capacity of which all examples together ask for the larger
    share; of rows alike in it the one with the most space of the other.

    O(n log capacity). Raises ValueError when an example does not fit an empty row. Source: Johnson et al. 1974 for one
    capacity; Panigrahy et al. 2011, "Heuristics for vector bin packing", for orders with several.
    """
    columns, limits = sizes.astype(np.int32), np.array(capacities, np.int64)
    if (columns > limits).any() or (columns < 0).any():
        raise ValueError("an example takes more than a row has")
    if len(capacities) == 1:
        columns, limits = np.pad(columns, ((0, 0), (0, 1))), np.append(limits, 0)
    elif columns[:, 1].sum() * limits[0] > columns[:, 0].sum() * limits[1]:
        columns, limits = columns[:, ::-1], limits[::-1]
    # Shares of a row, times the product of both capacities; a capacity of 0 is not taken of.
    shares = np.maximum(columns[:, 0] * max(limits[1], 1), columns[:, 1] * limits[0])
    largest = int(shares.max(initial=0))
    # In a type that is sorted in linear time, where there is one.
    order = np.argsort((largest - shares).astype(np.min_scalar_type(largest)), kind="stable")
    rows = np.empty(len(order), np.int64)
    rows[order] = _placed(np.ascontiguousarray(columns[order]), int(limits[0]), int(limits[1]))
    return rows


def _placed(sizes: NDArray[np.int32], capacity: int, second_capacity: int) -> NDArray[np.int64]:
    extension = native_extension(*PACKING)
    if extension is None:
        return placed_in_python(sizes, capacity, second_capacity)
    rows: NDArray[np.int64] = extension.fill_rows(sizes, capacity, second_capacity)
    return rows


def placed_in_python(sizes: NDArray[np.int32], capacity: int, second_capacity: int) -> NDArray[np.int64]:
    """The row of each example, in the order given: csrc/packing does the same."""
    filler = _RowFiller(capacity, second_capacity)
    return np.array([filler.place(size, second) for size, second in sizes.tolist()], np.int64)


class _RowFiller:
    """Open rows by the space that they have left."""

    def __init__(self, capacity: int, second_capacity: int) -> None:
        self._capacity, self._second_capacity = capacity, second_capacity
        self._num_rows = 0
        # A heap for each space; its top is the row with the most second space, of those alike the one opened first.
        self._rows_of_space: list[list[tuple[int, int]]] = [[] for _ in range(capacity + 1)]
        # A tournament over the spaces, leaves from `_leaves` on: the most second space of any row below.
        self._leaves = 1 << capacity.bit_length()
        self._most = [-1] * (2 * self._leaves)

    def place(self, size: int, second_size: int) -> int:
        space = self._least_space_that_holds(size, second_size)
        second_space, row = self._second_capacity, self._num_rows
        if space is None:
            self._num_rows += 1
            space = self._capacity
        else:
            negative, row = heapq.heappop(self._rows_of_space[space])
            second_space = -negative
            self._refresh(space)
        heapq.heappush(self._rows_of_space[space - size], (second_size - second_space, row))
        self._refresh(space - size)
        return row

    def _least_space_that_holds(self, size: int, second_size: int) -> int | None:
        most, node = self._most, self._leaves + size
        while most[node] < second_size:
            # On to the next subtree on the right; a node that ends the tree has none.
            while node & 1:
                node >>= 1
            if not node:
                return None
            node += 1
        while node < self._leaves:
            node *= 2
            node += most[node] < second_size
        return node - self._leaves

    def _refresh(self, space: int) -> None:
        most, node, rows = self._most, self._leaves + space, self._rows_of_space[space]
        most[node] = -rows[0][0] if rows else -1
        while node > 1:
            node >>= 1
            larger = max(most[2 * node], most[2 * node + 1])
            if most[node] == larger:
                return
            most[node] = larger
