"""A row as text: its tokens with labels, loss and positions, and who sees whom."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron.cli.mask_text import mask_lines
from megatron.cli.terminal_style import ESCAPE, Style
from megatron.records.row import EncoderRow, Row
from megatron.records.visibility import Intervals

LONGEST_PIECE = 14
GAP = -1  # stands among positions for those that are left out


@dataclass(frozen=True)
class RowPrinter:
    """Draws rows. piece: the name of a token. width: characters of a line. positions: shown of each stream at most."""

    piece: Callable[[int], str]
    style: Style
    width: int
    positions: int

    def lines(self, row: Row) -> Iterator[str]:
        """The tables of the streams, each followed by its mask; of an encoder-decoder the encoder's comes first."""
        segments = segments_of(row.intervals)
        if row.encoder is not None:
            inputs = segments_of(row.encoder.intervals)
            segments = _segments_across(row.encoder, inputs)
            yield from self._stream("encoder", row.encoder, inputs)
        yield from self._stream("decoder" if row.encoder else "", row, segments)
        if row.encoder is not None:
            yield "what decoder positions see of the encoder:"
            yield from self._mask(row.encoder.cross_intervals, len(row.encoder.tokens), segments)

    def _stream(self, name: str, stream: Row | EncoderRow, segments: NDArray[np.int64]) -> Iterator[str]:
        yield from self._table(name, stream, segments)
        yield f"what {name}{' ' if name else ''}positions see:"
        yield from self._mask(stream.intervals, len(stream.tokens), segments)

    def _mask(self, intervals: Intervals, num_keys: int, segments: NDArray[np.int64]) -> Iterator[str]:
        drawing = mask_lines(intervals, num_keys, segments, width=self.width - 2, style=self.style)
        yield from (f"  {line}" for line in drawing)

    def _table(self, name: str, stream: Row | EncoderRow, segments: NDArray[np.int64]) -> Iterator[str]:
        heads = [name or "at", "token", *(["label", "loss"] if isinstance(stream, Row) else [])]
        heads += ["segment", "position", "sees"]
        margin = max(map(len, heads)) + 2
        columns = [
            self._column(stream, segments, at) if at != GAP else ["..."] * len(heads)
            for at in shown_positions(segments, self.positions)
        ]
        for block in _blocks(columns, self.width - margin):
            for line, head in enumerate(heads):
                cells = [f"{column[line]}{' ' * (_width(column) - _shown(column[line]))}" for column in block]
                yield f"{self.style.faint(head.ljust(margin))}{' '.join(cells)}".rstrip()
            yield ""

    def _column(self, stream: Row | EncoderRow, segments: NDArray[np.int64], at: int) -> list[str]:
        """The cells of one position, from top to bottom."""
        segment, (start, end) = int(segments[at]), stream.intervals[at].tolist()
        token = self._piece(int(stream.tokens[at]))
        cells = [str(at), self.style.number(token, segment) if segment >= 0 else self.style.faint(token)]
        if isinstance(stream, Row):
            label, weight = self._piece(int(stream.labels[at])), float(stream.loss_mask[at])
            cells += [self.style.strong(label) if weight else self.style.faint(label), f"{weight:g}" if weight else "."]
        sees = "." if start == end else f"{start}-{end - 1}" if end > start + 1 else str(start)
        return [*cells, str(segment + 1) if segment >= 0 else ".", str(int(stream.position_ids[at])), sees]

    def _piece(self, token: int) -> str:
        name = self.piece(token)
        name = "".join(
            char if char.isprintable() and char != " " else repr(char)[1:-1].replace(" ", "_") for char in name
        )
        return name if len(name) <= LONGEST_PIECE else name[: LONGEST_PIECE - 2] + ".."


def segments_of(intervals: Intervals) -> NDArray[np.int64]:
    """Segment of each position, int64 [s], counted from 0 and -1 for padding: whose view begins at the same key."""
    start, end = intervals[:, 0], intervals[:, 1]
    segments = np.full(len(intervals), -1, np.int64)
    filled = end > start
    segments[filled] = np.unique(start[filled], return_inverse=True)[1]
    return segments


def filled_positions(row: Row) -> tuple[int, int]:
    """(positions that hold something, all positions) of the streams of a row."""
    views = [row.intervals] + ([row.encoder.intervals] if row.encoder else [])
    return sum(int((view[:, 1] > view[:, 0]).sum()) for view in views), sum(map(len, views))


def shown_positions(segments: NDArray[np.int64], limit: int) -> list[int]:
    """All positions of a short row; of a long one those at both ends of each segment, with GAP for what is left out.

    Where `limit` positions do not reach for all segments, the first ones and the last are shown.
    """
    if len(segments) <= limit:
        return list(range(len(segments)))
    ends = [*(np.flatnonzero(np.diff(segments)) + 1).tolist(), len(segments)]
    listed = [*itertools.pairwise([0, *ends])]
    if 2 * len(listed) > limit:
        listed = [*listed[: limit // 2 - 1], listed[-1]]
    each = limit // (2 * len(listed))
    shown: list[int] = []
    previous = 0
    for begin, end in listed:
        if begin != previous:
            shown.append(GAP)
        if end - begin <= 2 * each:
            shown += range(begin, end)
        else:
            shown += [*range(begin, begin + each), GAP, *range(end - each, end)]
        previous = end
    return shown


def _segments_across(encoder: EncoderRow, inputs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Segment of each decoder position: that of the encoder positions which it sees; -1 where it sees none."""
    start, end = encoder.cross_intervals[:, 0], encoder.cross_intervals[:, 1]
    return np.where(end > start, inputs[np.minimum(start, len(inputs) - 1)], -1)


def _blocks(columns: Sequence[list[str]], width: int) -> Iterator[list[list[str]]]:
    """Columns in groups that fit a line."""
    block: list[list[str]] = []
    used = 0
    for column in columns:
        needed = _width(column) + 1
        if block and used + needed > width:
            yield block
            block, used = [], 0
        block.append(column)
        used += needed
    if block:
        yield block


def _width(column: Sequence[str]) -> int:
    return max(map(_shown, column))


def _shown(cell: str) -> int:
    """Characters of a cell that are seen."""
    return len(ESCAPE.sub("", cell))
