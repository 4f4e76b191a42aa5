"""Key intervals drawn as text: each query a line, or many queries and keys a character."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from megatron.cli.terminal_style import Style
from megatron.records import visibility
from megatron.records.visibility import Intervals

SMALL = 40  # queries that are drawn one by one
HIGHEST, WIDEST = 24, 64  # lines and characters of a drawing that is drawn smaller
ALL, SOME, NONE = "#", "+", "."


def mask_lines(
    intervals: Intervals, num_keys: int, segments: NDArray[np.int64], *, width: int, style: Style
) -> list[str]:
    """A drawing at most `width` characters wide, queries from top to bottom, keys from left to right.

    intervals: int32 [s_q, 2]. segments: int64 [s_q], the segment of each query, which colours its line; -1 for padding.
    A small mask is drawn exactly, 1 and 0 as in `records.visibility`. A large one is drawn smaller: a character stands
    for a block of queries and keys, `#` where all of the queries see all of the keys, `+` some, `.` none; a last line
    says so.
    """
    legend = []
    if len(intervals) <= SMALL and 2 * num_keys - 1 <= width:
        lines, first_queries = visibility.draw(intervals, num_keys).splitlines(), np.arange(len(intervals))
    else:
        rows, columns = min(len(intervals), HIGHEST), min(num_keys, WIDEST, width)
        first_queries = np.arange(rows) * len(intervals) // rows
        shares = seen_shares(intervals, num_keys, rows, columns)
        block = f"{len(intervals) / rows:.3g} queries by {num_keys / columns:.3g} keys"
        legend = [style.faint(f"({ALL} all, {SOME} some, {NONE} none of {block})")]
        lines = ["".join(ALL if share == 1 else SOME if share else NONE for share in line) for line in shares]
    painted = [
        style.number(line, int(segments[query])) if segments[query] >= 0 else style.faint(line)
        for line, query in zip(lines, first_queries, strict=True)
    ]
    return painted + legend


def seen_shares(intervals: Intervals, num_keys: int, rows: int, columns: int) -> NDArray[np.float64]:
    """Share of (query, key) pairs that are seen in each block: float64 [rows, columns], 0 to 1."""
    key_bounds = np.arange(columns + 1) * num_keys // columns
    query_bounds = np.arange(rows + 1) * len(intervals) // rows
    start, end = intervals[:, :1].astype(np.int64), intervals[:, 1:].astype(np.int64)
    seen = np.minimum(end, key_bounds[1:]) - np.maximum(start, key_bounds[:-1])
    counts = np.add.reduceat(np.maximum(seen, 0), query_bounds[:-1], axis=0)
    return np.asarray(counts / (np.diff(query_bounds)[:, None] * np.diff(key_bounds)))
