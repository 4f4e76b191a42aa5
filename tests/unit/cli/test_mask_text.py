"""Masks as text: small ones to the bit, large ones by blocks, never wider than asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.cli.mask_text import mask_lines, seen_shares
from megatron.cli.terminal_style import ESCAPE, Style
from megatron.records import visibility

PLAIN, COLOURED = Style(False), Style(True)


def test_a_small_mask_is_drawn_to_the_bit() -> None:
    packed = visibility.packed([visibility.prefix(2, 3), visibility.causal(2)], 6)
    segments = np.array([0, 0, 0, 1, 1, -1])
    assert mask_lines(packed, 6, segments, width=80, style=PLAIN) == [
        "1 1 0 0 0 0",
        "1 1 0 0 0 0",
        "1 1 1 0 0 0",
        "0 0 0 1 0 0",
        "0 0 0 1 1 0",
        "0 0 0 0 0 0",
    ]


def test_segments_differ_in_colour_and_padding_is_faint() -> None:
    packed = visibility.packed([visibility.causal(1), visibility.causal(1)], 3)
    lines = mask_lines(packed, 3, np.array([0, 1, -1]), width=80, style=COLOURED)
    assert lines == ["\x1b[36m1 0 0\x1b[0m", "\x1b[33m0 1 0\x1b[0m", "\x1b[2m0 0 0\x1b[0m"]


def test_a_large_mask_is_drawn_by_blocks() -> None:
    """96 positions in blocks of 4 queries and of one and two keys in turn: 0, 1 2, 3, 4 5, ... in 64 characters."""
    packed = visibility.packed([visibility.bidirectional(48), visibility.causal(24)], 96)
    lines = mask_lines(packed, 96, np.zeros(96, np.int64), width=200, style=PLAIN)
    assert lines[:12] == ["#" * 32 + "." * 32] * 12
    assert lines[12] == "." * 32 + "#++" + "." * 29  # queries 48 to 51: all see key 48, some see 49 to 51
    assert lines[17] == "." * 32 + "#" * 14 + "++" + "." * 16
    assert lines[18:24] == ["." * 64] * 6
    assert lines[24:] == ["(# all, + some, . none of 4 queries by 1.5 keys)"]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), queries=st.integers(1, 90), keys=st.integers(1, 90))
def test_shares_are_those_of_the_dense_mask(data: st.DataObject, queries: int, keys: int) -> None:
    rows, columns = data.draw(st.integers(1, queries)), data.draw(st.integers(1, keys))
    bounds = np.sort(np.array(data.draw(st.lists(st.integers(0, keys), min_size=2 * queries, max_size=2 * queries))))
    intervals = np.stack([np.minimum(bounds[:queries], bounds[queries:]), bounds[queries:]], axis=1).astype(np.int32)
    dense = visibility.dense(intervals, keys)
    query_edges = [number * queries // rows for number in range(rows + 1)]
    key_edges = [number * keys // columns for number in range(columns + 1)]
    expected = [
        [dense[query_edges[i] : query_edges[i + 1], key_edges[j] : key_edges[j + 1]].mean() for j in range(columns)]
        for i in range(rows)
    ]
    np.testing.assert_allclose(seen_shares(intervals, keys, rows, columns), expected)


@pytest.mark.parametrize("length", [1, 30, 39, 40, 41, 100, 2048])
@pytest.mark.parametrize("width", [40, 78, 200])
def test_no_line_is_wider_than_asked(length: int, width: int) -> None:
    lines = mask_lines(visibility.causal(length), length, np.zeros(length, np.int64), width=width, style=COLOURED)
    drawing = [ESCAPE.sub("", line) for line in lines if "(" not in line]
    assert max(map(len, drawing)) <= width and len(drawing) <= 40
