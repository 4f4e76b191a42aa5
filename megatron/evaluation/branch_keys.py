"""The keys of answers that share a context: its positions in the row, then their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from megatron.records.batch import Branches, Visibility

COPIES = 4  # of the keys of a batch at once, so that the memory of attention stays like that of its projections


@dataclass(frozen=True)
class Branch:
    """`length` positions from `first` on in a row of a batch that go on behind `trunk` positions from `begin` on."""

    row: int
    begin: int
    trunk: int
    first: int
    length: int


def branches_of(branches: Iterable[Branch], num_rows: int, length: int) -> tuple[Branches, ...]:
    """Branches in a batch of so many rows of some length as the model takes them.

    All of one `Branches` are padded to the longest, and keys are copied whether they are seen or not; so those of like
    size are together, within a factor of 2 for keys, of 4 for queries. With very many branches behind one trunk there
    are several `Branches` of a size, each with at most COPIES times the keys of the batch.
    """
    alike: dict[tuple[int, int], list[Branch]] = {}
    for branch in branches:
        size = (branch.trunk + branch.length).bit_length(), (branch.length.bit_length() + 1) // 2
        alike.setdefault(size, []).append(branch)
    return tuple(
        _padded(part, num_rows) for size in sorted(alike) for part in _parts(alike[size], COPIES * num_rows * length)
    )


def _parts(branches: Sequence[Branch], most_keys: int) -> Iterator[Sequence[Branch]]:
    size = most_keys // max(branch.trunk + branch.length for branch in branches)
    for first in range(0, len(branches), size):
        yield branches[first : first + size]


def _padded(branches: Sequence[Branch], num_rows: int) -> Branches:
    num_queries = max(branch.length for branch in branches)
    num_keys = max(branch.trunk + branch.length for branch in branches)
    rows = np.array([[branch.row] for branch in branches], np.int64)
    positions = np.zeros((len(branches), num_keys), np.int64)
    intervals = np.zeros((len(branches), num_queries, 2), np.int32)
    for number, branch in enumerate(branches):
        own = num_keys - branch.length
        positions[number, own - branch.trunk : own] = np.arange(branch.begin, branch.begin + branch.trunk)
        positions[number, own:] = np.arange(branch.first, branch.first + branch.length)
        intervals[number, num_queries - branch.length :, 0] = own - branch.trunk
        intervals[number, num_queries - branch.length :, 1] = np.arange(own, num_keys) + 1
    origins = np.stack(np.nonzero(intervals[..., 1]))
    branch_numbers, columns = origins
    targets = np.stack([positions[branch_numbers, columns + num_keys - num_queries], rows[branch_numbers, 0]])
    return Branches(
        keys=torch.from_numpy(positions * num_rows + rows),
        visibility=Visibility(torch.from_numpy(intervals), num_keys),
        origins=torch.from_numpy(origins),
        targets=torch.from_numpy(targets),
    )
