"""Rows as text: every cell of a worked example, and what long rows leave out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.cli.row_text import GAP, RowPrinter, filled_positions, segments_of, shown_positions
from megatron.cli.terminal_style import ESCAPE, Style
from megatron.records.example import SequencePair
from megatron.records.row import Row

PLAIN = Style(False)


def row_of(architecture: str, examples: list[tuple[list[int], list[int]]], length: int, decoder_length: int = 0) -> Row:
    rules = RowRules(seq_length=length, decoder_seq_length=decoder_length, end_token=1)
    pairs = [SequencePair(np.array(one, np.int32), np.array(other, np.int32)) for one, other in examples]
    return ARCHITECTURES[architecture]().arrange(pairs, rules)


def printed(row: Row, width: int = 100, positions: int = 50, style: Style = PLAIN) -> list[str]:
    return list(RowPrinter(lambda token: f"t{token}", style, width, positions).lines(row))


def test_a_packed_row_of_a_prefix_decoder() -> None:
    row = row_of("prefix_decoder", [([5, 6], [7, 8]), ([20], [21])], 7)
    assert printed(row) == [
        "at        0   1   2   3   4   5   6",
        "token     t5  t6  t7  t8  t20 t21 t0",
        "label     t6  t7  t8  t0  t21 t0  t0",
        "loss      .   1   1   .   1   .   .",
        "segment   1   1   1   1   2   2   .",
        "position  0   1   2   3   0   1   0",
        "sees      0-1 0-1 0-2 0-3 4   4-5 .",
        "",
        "what positions see:",
        "  1 1 0 0 0 0 0",
        "  1 1 0 0 0 0 0",
        "  1 1 1 0 0 0 0",
        "  1 1 1 1 0 0 0",
        "  0 0 0 0 1 0 0",
        "  0 0 0 0 1 1 0",
        "  0 0 0 0 0 0 0",
    ]
    assert filled_positions(row) == (6, 7)


def test_both_rows_of_an_encoder_decoder_share_the_numbers_of_segments() -> None:
    """The second example has no target, so that the decoder's second segment belongs to the third example."""
    row = row_of("encoder_decoder", [([5, 6], [7]), ([8], []), ([9], [30, 31])], 5, 4)
    lines = printed(row)
    tables = [line.split()[1:] for line in lines if line.startswith("segment")]
    assert tables == [["1", "1", "2", "3", "."], ["1", "3", "3", "."]]
    assert [line.split()[0] for line in lines if line.endswith((" 4", " 3")) and "e" in line][:2] == [
        "encoder",
        "decoder",
    ]
    assert lines[-5:] == [
        "what decoder positions see of the encoder:",
        "  1 1 0 0 0",
        "  0 0 0 1 0",
        "  0 0 0 1 0",
        "  0 0 0 0 0",
    ]
    assert filled_positions(row) == (7, 9)


def test_segments_are_what_sees_the_same_beginning() -> None:
    intervals = np.array([[0, 1], [0, 2], [2, 4], [2, 4], [4, 4]], np.int32)
    assert segments_of(intervals).tolist() == [0, 0, 1, 1, -1]


@pytest.mark.parametrize("width", [40, 61, 120])
@pytest.mark.parametrize("positions", [8, 30, 500])
def test_lines_fit_the_terminal_and_colours_change_no_text(width: int, positions: int) -> None:
    row = row_of("causal_decoder", [([], list(range(2, 40))), ([], list(range(40, 83)))], 90)
    plain, coloured = printed(row, width, positions), printed(row, width, positions, Style(True))
    assert [ESCAPE.sub("", line) for line in coloured] == plain and coloured != plain
    assert max(map(len, plain)) <= max(width, 60)  # the legend of the mask is a sentence


def test_a_piece_is_one_word_on_one_line() -> None:
    row = row_of("causal_decoder", [([], [2, 3])], 2)
    names = {0: "<pad>", 2: "a b\n", 3: "x" * 40}
    lines = list(RowPrinter(names.__getitem__, Style(False), 80, 8).lines(row))
    assert lines[1].split() == ["token", "a_b\\n", "xxxxxxxxxxxx.."]


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60), limit=st.integers(8, 60))
def test_long_rows_show_both_ends_of_each_segment_that_fits(lengths: list[int], limit: int) -> None:
    segments = np.repeat(np.arange(len(lengths)), lengths)
    shown = shown_positions(segments, limit)
    positions = [at for at in shown if at != GAP]
    assert positions == sorted(set(positions)) and len(positions) <= limit
    if len(segments) <= limit:
        assert shown == list(range(len(segments)))
    ends = np.cumsum(lengths)
    both = np.stack([ends - lengths, ends - 1], axis=1)
    if 2 * len(lengths) > limit:
        both = both[[*range(limit // 2 - 1), -1]]
    assert {*both.ravel().tolist()} <= set(positions)
    for before, after in itertools.pairwise([*shown, len(segments)]):
        assert GAP in (before, after) or after == before + 1  # what is left out is marked
        assert not before == after == GAP
