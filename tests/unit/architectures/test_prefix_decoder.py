"""How the prefix decoder arranges examples into rows: the study's worked examples, and what holds for all rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.architectures.causal_decoder import CausalDecoder
from megatron.architectures.prefix_decoder import PrefixDecoder
from megatron.architectures.row_rules import RowRules
from megatron.records import visibility
from megatron.records.example import SequencePair


def pair(inputs, targets, *, is_complete=False):
    return SequencePair(np.array(inputs, np.int32), np.array(targets, np.int32), is_complete=is_complete)


def arrange(examples, length, architecture=PrefixDecoder, **rules):
    return architecture().arrange(
        examples, RowRules(seq_length=length, end_token=1, start_token=0, pad_token=0, **rules)
    )


def test_prefix_lm_of_the_study():
    """Chunk 5 6 7 8 9 1 cut at 2: the start token and the prefix see each other, and 7 is first to be predicted."""
    row = arrange([pair([5, 6], [7, 8, 9, 1])], 6, begins_with_start_token=True)
    assert row.labels.tolist() == [5, 6, 7, 8, 9, 1]
    assert row.tokens.tolist() == [0, 5, 6, 7, 8, 9]
    assert row.loss_mask.tolist() == [0, 0, 1, 1, 1, 1]
    assert visibility.draw(row.intervals, 6).splitlines() == [
        "1 1 1 0 0 0",
        "1 1 1 0 0 0",
        "1 1 1 0 0 0",
        "1 1 1 1 0 0",
        "1 1 1 1 1 0",
        "1 1 1 1 1 1",
    ]


def test_prefix_lm_without_a_start_token():
    """As Megatron feeds it: one token more than positions, and the last input predicts the first target."""
    row = arrange([pair([5, 6], [7, 8, 9, 1])], 5)
    assert row.tokens.tolist() == [5, 6, 7, 8, 9]
    assert row.labels.tolist() == [6, 7, 8, 9, 1]
    assert row.loss_mask.tolist() == [0, 1, 1, 1, 1]
    assert row.intervals.tolist() == [[0, 2], [0, 2], [0, 3], [0, 4], [0, 5]]


@pytest.mark.parametrize(("begins", "positions"), [(False, [0, 1, 0, 1, 2]), (True, [0, 1, 2, 0, 1, 2])])
def test_positions_may_restart_in_the_prefix_and_leave_its_mask(begins, positions):
    """Documents 5 6 and 7 8 9 1, the second of which the prefix ends in."""
    example = SequencePair(np.array([5, 6, 7], np.int32), np.array([8, 9, 1], np.int32), np.array([0, 2], np.int32))
    length = 6 if begins else 5
    plain, row = (
        arrange([example], length, begins_with_start_token=begins, reset_position_ids=restart)
        for restart in (False, True)
    )
    assert plain.position_ids.tolist() == list(range(length)) and row.position_ids.tolist() == positions
    assert row.intervals.tolist() == plain.intervals.tolist()
    assert row.intervals[:3].tolist() == [[0, 3 + begins]] * 3  # prefix and start token see each other


@pytest.mark.parametrize("architecture", [CausalDecoder, PrefixDecoder])
def test_span_corruption_of_the_study(architecture):
    example = pair([10, 11, 12, 13, 99, 15, 16, 98], [99, 14, 98, 17, 18, 19], is_complete=True)
    row = arrange([example], 16, architecture, begins_with_start_token=True)
    assert row.labels.tolist() == [10, 11, 12, 13, 99, 15, 16, 98, 1, 99, 14, 98, 17, 18, 19, 1]
    assert row.tokens.tolist() == [0, 10, 11, 12, 13, 99, 15, 16, 98, 1, 99, 14, 98, 17, 18, 19]
    assert row.loss_mask.tolist() == [0] * 9 + [1] * 7
    sees = row.intervals[:, 1].tolist()
    assert sees == (list(range(1, 17)) if architecture is CausalDecoder else [10] * 10 + list(range(11, 17)))


def test_packed_examples_of_the_study():
    """Multitask finetuning, rows of 8: inputs 5 6 with target 7, input 8 with target 9, an end token behind targets."""
    examples = [pair([5, 6], [7, 1]), pair([8], [9, 1])]
    row = arrange(examples, 8, begins_with_start_token=True)
    assert row.labels.tolist() == [5, 6, 7, 1, 8, 9, 1, 0]
    assert row.tokens.tolist() == [0, 5, 6, 7, 0, 8, 9, 0]
    assert row.loss_mask.tolist() == [0, 0, 1, 1, 0, 1, 1, 0]
    assert row.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 2, 0]
    assert visibility.draw(row.intervals, 8).splitlines() == [
        "1 1 1 0 0 0 0 0",
        "1 1 1 0 0 0 0 0",
        "1 1 1 0 0 0 0 0",
        "1 1 1 1 0 0 0 0",
        "0 0 0 0 1 1 0 0",
        "0 0 0 0 1 1 0 0",
        "0 0 0 0 1 1 1 0",
        "0 0 0 0 0 0 0 0",
    ]


def test_packed_examples_without_start_tokens():
    row = arrange([pair([5, 6], [7, 1]), pair([8], [9, 1])], 7)
    assert row.tokens.tolist() == [5, 6, 7, 1, 8, 9, 1]
    assert row.labels.tolist() == [6, 7, 1, 0, 9, 1, 0]
    assert row.loss_mask.tolist() == [0, 1, 1, 0, 1, 1, 0]


def test_a_last_label_needs_no_position_of_its_own():
    """Without start tokens the last example of a full row gives its last token as a label alone."""
    row = arrange([pair([5, 6], [7, 1]), pair([8], [9, 1])], 6)
    assert row.tokens.tolist() == [5, 6, 7, 1, 8, 9]
    assert row.loss_mask.tolist() == [0, 1, 1, 0, 1, 1]
    assert row.intervals.tolist() == [[0, 2], [0, 2], [0, 3], [0, 4], [4, 5], [4, 6]]


@st.composite
def examples_of_a_row(draw):
    sizes = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=4))
    sizes = [(inputs, targets) for inputs, targets in sizes if inputs + targets] or [(1, 1)]
    complete = draw(st.booleans())
    tokens = iter(range(10, 100))
    return [
        pair([next(tokens) for _ in range(i)], [next(tokens) for _ in range(t)], is_complete=complete) for i, t in sizes
    ]


@settings(deadline=None)
@given(examples=examples_of_a_row(), spare=st.integers(0, 3), start=st.booleans(), causal=st.booleans())
def test_what_holds_for_every_row(examples, spare, start, causal):
    """Each target is predicted once, from inputs and earlier targets of its own example and from nothing else."""
    length = sum(len(e.inputs) + len(e.targets) + 2 * e.is_complete for e in examples) + spare
    row = arrange(examples, length, CausalDecoder if causal else PrefixDecoder, begins_with_start_token=start)
    visibility.check(row.intervals, length)
    predicted = iter(np.flatnonzero(row.loss_mask))
    for example in examples:
        end = [1] if example.is_complete else []
        inputs, targets = [*example.inputs.tolist(), *end], [*example.targets.tolist(), *end]
        for number, target in enumerate(targets):
            if not (start or inputs or number):
                continue  # nothing comes before the first token of a text
            position = next(predicted)
            first, last = row.intervals[position]
            assert row.labels[position] == target
            seen = row.tokens[first:last].tolist()
            assert seen == [0] * start + inputs + targets[:number]
    assert next(predicted, None) is None


def test_rows_need_room_for_their_examples():
    with pytest.raises(ValueError, match="8 tokens do not fit a row of 6"):
        arrange([pair([5, 6], [7, 1]), pair([5, 6], [7, 1])], 6)
