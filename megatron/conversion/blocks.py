"""Tensors of one side as those of the other, a few rows at a time, so that none is ever whole in memory.

Rules say what becomes of whole tensors (see transforms.py). All of them order rows, which may become columns: where
each row goes is learnt by handing the transform the numbers of rows instead of weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor

from megatron.conversion.rules import Pair

# (name, origin, shape) -> the part of a tensor of that shape which begins at `origin`.
ReadBox = Callable[[str, Sequence[int], Sequence[int]], Tensor]

ROWS = 1 << 19  # numbers in a block of rows that lie together on the disk
COLUMNS = 1 << 22  # numbers in a block of columns, a part of each row: the larger, the longer those parts
NOWHERE = -1


@dataclass(frozen=True)
class RowOrder:
    """rows: for each tensor of theirs, its rows as numbers of our rows [length], int64.

    is_turned: they are its columns, since a matrix of ours stands there transposed.
    """

    rows: tuple[Tensor, ...]
    is_turned: bool

    @classmethod
    def of(cls, pair: Pair) -> RowOrder:
        """The order that the transform of a rule makes."""
        numbers = torch.arange(pair.shape[0])
        # Without columns, a matrix that was transposed has no rows.
        turned = pair.transform.to_theirs(torch.empty(pair.shape[0], 0))[0].shape[0] == 0
        return cls(pair.transform.to_theirs(numbers), len(pair.shape) > 1 and turned)


def theirs_in_blocks(pair: Pair, read: ReadBox) -> Iterator[Tensor]:
    """The tensors of a folder, one after the other, each in one or more blocks of its rows; `read`: from ours."""
    order = RowOrder.of(pair)
    for rows, shape in zip(order.rows, pair.shapes_of_theirs(), strict=True):
        if order.is_turned:
            for first, last in _ranges((shape[0], pair.shape[0]), COLUMNS):
                # Nothing is called by a name: what is turned here must be gone while the next columns are read.
                yield _picked(read(pair.ours, (0, first), (pair.shape[0], last - first)), rows, 0).t().contiguous()
        else:
            for first, last in _ranges(shape, ROWS):
                yield _gathered(pair.ours, pair.shape, rows[first:last], 0, read)


def ours_in_blocks(pair: Pair, read: ReadBox) -> Iterator[Tensor]:
    """The checkpoint's tensor in one or more blocks of its rows; `read`: from theirs. Rows of nobody are zeros."""
    order = RowOrder.of(pair)
    shapes = pair.shapes_of_theirs()
    source = torch.full((pair.shape[0],), NOWHERE)
    place = torch.zeros_like(source)
    for number, rows in enumerate(order.rows):
        source[rows] = number
        place[rows] = torch.arange(len(rows))

    def rows_of_ours(first: int, last: int) -> Tensor:
        parts = []
        for number in source[first:last].unique().tolist():
            if number == NOWHERE:
                continue
            (own,) = (source[first:last] == number).nonzero(as_tuple=True)
            name, numbers = pair.theirs[number], place[first:last][own]
            part = _gathered(name, shapes[number], numbers, int(order.is_turned), read)
            parts.append((own, part.t() if order.is_turned else part))
        return _joined(parts, (last - first, *pair.shape[1:]))

    for first, last in _ranges(pair.shape, COLUMNS if order.is_turned else ROWS):
        yield rows_of_ours(first, last)


def row_ranges(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of each block of rows of a tensor."""
    return _ranges(shape, ROWS)


def _ranges(shape: Sequence[int], numbers: int) -> Iterator[tuple[int, int]]:
    step = max(1, numbers // max(1, math.prod(shape[1:])))
    for first in range(0, shape[0], step):
        yield first, min(first + step, shape[0])


def _joined(parts: Sequence[tuple[Tensor, Tensor]], shape: tuple[int, ...]) -> Tensor:
    """Rows from several tensors, each with its places; zeros elsewhere. The widest dtype of them."""
    if len(parts) == 1 and parts[0][1].shape == shape:
        return parts[0][1].contiguous()
    dtype = reduce(torch.promote_types, (part.dtype for _, part in parts)) if parts else torch.float32
    block = torch.zeros(shape, dtype=dtype)
    for own, part in parts:
        block[own] = part.to(dtype)
    return block


def _gathered(name: str, shape: Sequence[int], numbers: Tensor, axis: int, read: ReadBox) -> Tensor:
    """The rows (axis 0) or columns (axis 1) of these numbers; only they are read, neighbours together."""
    wanted, places = numbers.unique(return_inverse=True)
    begins = [0, *((wanted.diff() != 1).nonzero().flatten() + 1).tolist(), len(wanted)]
    parts = []
    for begin, end in pairwise(begins):
        origin, size = [0] * len(shape), list(shape)
        origin[axis], size[axis] = int(wanted[begin]), end - begin
        parts.append(read(name, origin, size))
    return _picked(parts[0] if len(parts) == 1 else torch.cat(parts, axis), places, axis)


def _picked(part: Tensor, numbers: Tensor, axis: int) -> Tensor:
    """These rows or columns, without a copy where they are all of them in their order."""
    if torch.equal(numbers, torch.arange(part.shape[axis])):
        return part
    return part.index_select(axis, numbers)
