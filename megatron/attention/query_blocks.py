"""Cuts the queries of a step into blocks and finds the keys that each one needs, so that hidden tiles cost nothing."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import Tensor

from megatron.device.capabilities import reads_back_for_free
from megatron.records.batch import Visibility

# Measured on CPU: 64 makes the matrix products too small, 256 computes too many hidden scores.
QUERIES_PER_BLOCK = 128


@dataclass(frozen=True)
class QueryBlock:
    """Queries [first_query, end_query) see keys of [first_key, end_key) only.

    intervals: int32 [b, end_query - first_query, 2], counted from first_key.
    """

    first_query: int
    end_query: int
    first_key: int
    end_key: int
    intervals: Tensor

    def distances(self, num_queries: int) -> slice:
        """The entries of a distance bias [h, s_q + s_k - 1] that belong to this block, in the same order."""
        start = self.first_key - self.end_query + num_queries
        return slice(start, start + (self.end_query - self.first_query) + (self.end_key - self.first_key) - 1)


_blocks_of_step: WeakKeyDictionary[Visibility, tuple[QueryBlock, ...]] = WeakKeyDictionary()


def query_blocks(visibility: Visibility) -> tuple[QueryBlock, ...]:
    """The blocks of a step, found once for all layers. Blocks that see no key at all are left out.

    One block with all keys where looking at the intervals would make the host wait for the device.
    """
    blocks = _blocks_of_step.get(visibility)
    if blocks is None:
        blocks = _blocks_of_step[visibility] = _cut(visibility)
    return blocks


def _cut(visibility: Visibility) -> tuple[QueryBlock, ...]:
    intervals, num_queries = visibility.intervals, visibility.intervals.shape[1]
    if not reads_back_for_free(intervals.device):
        return (QueryBlock(0, num_queries, 0, visibility.num_keys, intervals),)
    blocks = []
    for first in range(0, num_queries, QUERIES_PER_BLOCK):
        own = intervals[:, first : first + QUERIES_PER_BLOCK]
        seen = own[own[..., 1] > own[..., 0]]  # [n, 2]: empty intervals may lie anywhere
        if len(seen):
            first_key, end_key = int(seen[:, 0].min()), int(seen[:, 1].max())
            blocks.append(QueryBlock(first, first + own.shape[1], first_key, end_key, own - first_key))
    return tuple(blocks)
