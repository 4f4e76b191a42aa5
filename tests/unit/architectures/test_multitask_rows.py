"""Packed examples without an end token behind their inputs: worked by hand, after T0's and seqio's rules."""

from __future__ import annotations

import numpy as np
import pytest

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.records import visibility
from megatron.records.example import SequencePair
from megatron.records.row import Row

END = 1
# As seqio makes it for a non-causal decoder of 8 positions, with start and padding token 0.
SEEN = """\
1 1 1 0 0 0 0 0
1 1 1 0 0 0 0 0
1 1 1 0 0 0 0 0
1 1 1 1 0 0 0 0
0 0 0 0 1 1 0 0
0 0 0 0 1 1 0 0
0 0 0 0 1 1 1 0
0 0 0 0 0 0 0 0"""


def example(inputs: list[int], targets: list[int]) -> SequencePair:
    return SequencePair(np.array(inputs, np.int32), np.array(targets, np.int32), is_complete=True, ends_inputs=False)


def arranged(architecture: str, **rules: object) -> Row:
    """Inputs 5 6 with target 7, and input 8 with target 9."""
    examples = [example([5, 6], [7]), example([8], [9])]
    return ARCHITECTURES[architecture]().arrange(examples, RowRules(end_token=END, **rules))  # type: ignore[arg-type]


def test_prefix_decoder_as_t5x_feeds_it() -> None:
    row = arranged("prefix_decoder", seq_length=8, begins_with_start_token=True)
    assert row.labels.tolist() == [5, 6, 7, 1, 8, 9, 1, 0]
    assert row.tokens.tolist() == [0, 5, 6, 7, 0, 8, 9, 0]
    assert row.loss_mask.tolist() == [0, 0, 1, 1, 0, 1, 1, 0]
    assert visibility.draw(row.intervals, 8) == SEEN


def test_prefix_decoder_as_megatron_feeds_it() -> None:
    """The step from the last token to the padding, which Megatron-DeepSpeed counts, carries no loss."""
    row = arranged("prefix_decoder", seq_length=7)
    assert row.tokens.tolist() == [5, 6, 7, 1, 8, 9, 1]
    assert row.labels.tolist()[:3] == [6, 7, 1] and row.labels.tolist()[4:6] == [9, 1]
    assert row.loss_mask.tolist() == [0, 1, 1, 0, 1, 1, 0]
    assert visibility.draw(row.intervals, 7).splitlines()[:4] == [
        "1 1 0 0 0 0 0",
        "1 1 0 0 0 0 0",
        "1 1 1 0 0 0 0",
        "1 1 1 1 0 0 0",
    ]


def test_causal_decoder_differs_in_its_mask_alone() -> None:
    causal, prefix = (arranged(name, seq_length=8) for name in ("causal_decoder", "prefix_decoder"))
    for name in ("tokens", "labels", "loss_mask", "position_ids"):
        np.testing.assert_array_equal(getattr(causal, name), getattr(prefix, name))
    np.testing.assert_array_equal(causal.intervals[:4], visibility.causal(4))


def test_encoder_decoder_joins_each_target_with_its_inputs() -> None:
    row = arranged("encoder_decoder", seq_length=5, decoder_seq_length=6)
    assert row.encoder is not None
    assert row.encoder.tokens.tolist() == [5, 6, 8, 0, 0]
    assert (row.tokens.tolist(), row.labels.tolist()) == ([0, 7, 0, 9, 0, 0], [7, 1, 9, 1, 0, 0])
    assert row.loss_mask.tolist() == [1, 1, 1, 1, 0, 0]
    seen = visibility.draw(row.encoder.cross_intervals, 5).splitlines()
    assert seen == ["1 1 0 0 0"] * 2 + ["0 0 1 0 0"] * 2 + ["0 0 0 0 0"] * 2


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_behind_a_start_token_inputs_that_are_cut_away_leave_their_targets(name: str) -> None:
    rules = RowRules(
        seq_length=6, decoder_seq_length=6, end_token=END, begins_with_start_token=name != "encoder_decoder"
    )
    row = ARCHITECTURES[name]().arrange([example([], [7, 8])], rules)
    assert row.labels[row.loss_mask > 0].tolist() == [7, 8, END]


@pytest.mark.parametrize("name", ["causal_decoder", "prefix_decoder"])
def test_without_a_start_token_the_last_of_the_inputs_predicts_the_first_target(name: str) -> None:
    """So one input always stays (see `PairFile.sizes`): behind nothing the first target would not be learnt."""
    architecture, rules = ARCHITECTURES[name](), RowRules(seq_length=3, end_token=END)
    row = architecture.arrange([example([6], [7, 8])], rules)
    assert (row.tokens.tolist(), row.labels.tolist(), row.loss_mask.tolist()) == ([6, 7, 8], [7, 8, END], [1, 1, 1])
    bare = architecture.arrange([example([], [7, 8])], rules)
    assert bare.labels[bare.loss_mask > 0].tolist() == [8, END]
