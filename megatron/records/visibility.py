"""One mask for everything: each query sees one interval of keys.

Intervals are int32 [s_q, 2], half-open [start, end): query q sees the keys start[q] <= k < end[q]. Both bounds are
non-decreasing in q, so the queries that see a given key are an interval too, and a tile of the score matrix is skipped,
full or partial by four comparisons. An empty interval (start == end) is legal: that query's attention output is zero.
Related: FlashMask (Wang et al. 2024), which keeps the transposed view, intervals of queries for each key.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from megatron.basics.errors import UserError

Intervals = NDArray[np.int32]


def causal(length: int) -> Intervals:
    """Each position sees itself and what came before. causal(4):

    1 0 0 0
    1 1 0 0
    1 1 1 0
    1 1 1 1
    """
    return prefix(0, length)


def bidirectional(length: int, num_keys: int | None = None) -> Intervals:
    """Each of `length` queries sees all `num_keys` keys (default: as many keys as queries). bidirectional(2, 3):

    1 1 1
    1 1 1
    """
    end = np.full(length, length if num_keys is None else num_keys, np.int32)
    return np.stack([np.zeros(length, np.int32), end], axis=1)


def prefix(prefix_length: int, length: int) -> Intervals:
    """Positions before `prefix_length` see the whole prefix, later ones all positions up to their own. prefix(2, 4):

        1 1 0 0
        1 1 0 0
        1 1 1 0
        1 1 1 1

    Raises UserError if the prefix is longer than the row. Source: Raffel et al. 2020, section 3.2.1.
    """
    if not 0 <= prefix_length <= length:
        raise UserError(f"a prefix of {prefix_length} tokens does not fit a row of {length}; use 0 to {length}.")
    end = np.maximum(np.arange(1, length + 1, dtype=np.int32), np.int32(prefix_length))
    return np.stack([np.zeros(length, np.int32), end], axis=1)


def packed(segments: Sequence[Intervals], length: int) -> Intervals:
    """Several self-attention masks in one row of `length` positions, each blind to the others; the rest is padding.

    Padding positions see nothing. packed([causal(2), bidirectional(2)], 5):

        1 0 0 0 0
        1 1 0 0 0
        0 0 1 1 0
        0 0 1 1 0
        0 0 0 0 0

    Raises UserError if the segments are longer than the row.
    """
    total = sum(len(segment) for segment in segments)
    if total > length:
        raise UserError(f"segments of {total} positions do not fit a row of {length}; pack fewer examples.")
    offsets = np.cumsum([0, *(len(segment) for segment in segments)])
    parts = [segment + np.int32(offset) for segment, offset in zip(segments, offsets, strict=False)]
    parts.append(np.full((length - total, 2), total, np.int32))
    return np.concatenate(parts).astype(np.int32)


def crossed(query_lengths: Sequence[int], key_lengths: Sequence[int], length: int) -> Intervals:
    """Queries of each segment see all keys of the same segment of another row; the rest is padding that sees nothing.

    crossed([1, 2], [2, 1], 4):

        1 1 0
        0 0 1
        0 0 1
        0 0 0

    Raises UserError if the queries are more than `length`.
    """
    ends = np.cumsum(key_lengths, dtype=np.int32)
    bounds = np.stack([ends - np.asarray(key_lengths, np.int32), ends], axis=1)
    total = int(sum(query_lengths))
    if total > length:
        raise UserError(f"segments of {total} positions do not fit a row of {length}; pack fewer examples.")
    padding = np.full((length - total, 2), ends[-1] if len(ends) else 0, np.int32)
    return np.concatenate([np.repeat(bounds, query_lengths, axis=0), padding]).astype(np.int32)


def documents(document_starts: Sequence[int] | NDArray[np.integer], length: int) -> Intervals:
    """Causal attention that never looks across the start of a document. documents([0, 2], 4):

    1 0 0 0
    1 1 0 0
    0 0 1 0
    0 0 1 1
    """
    starts = np.asarray(document_starts, np.int32)
    starts = starts[starts < length]
    intervals = np.zeros((length, 2), np.int32)
    intervals[starts, 0] = starts
    np.maximum.accumulate(intervals[:, 0], out=intervals[:, 0])
    intervals[:, 1] = np.arange(1, length + 1, dtype=np.int32)
    return intervals


def dense(intervals: Intervals, num_keys: int) -> NDArray[np.bool_]:
    """The same mask as bool [s_q, num_keys], True where the query sees the key. For drawings and tests only."""
    keys = np.arange(num_keys)
    return (keys >= intervals[:, :1]) & (keys < intervals[:, 1:])


def draw(intervals: Intervals, num_keys: int) -> str:
    """Rows of 1 and 0, one line a query, as in the docstrings above."""
    return "\n".join(" ".join("1" if seen else "0" for seen in row) for row in dense(intervals, num_keys))


def check(intervals: Intervals, num_keys: int) -> None:
    """Raise ValueError unless the bounds are legal: 0 <= start <= end <= num_keys, both non-decreasing."""
    if intervals.ndim != 2 or intervals.shape[1] != 2 or intervals.dtype != np.int32:
        raise ValueError(f"intervals must be int32 [s_q, 2], not {intervals.dtype} {list(intervals.shape)}")
    start, end = intervals[:, 0], intervals[:, 1]
    if len(start) and (start.min() < 0 or end.max() > num_keys or (start > end).any()):
        raise ValueError(f"intervals must satisfy 0 <= start <= end <= {num_keys}")
    if (np.diff(start) < 0).any() or (np.diff(end) < 0).any():
        raise ValueError("both bounds of the intervals must be non-decreasing in the query")
