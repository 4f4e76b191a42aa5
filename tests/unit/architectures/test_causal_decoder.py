"""How the causal decoder arranges an example into a row: worked examples, and what holds for all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.architectures.causal_decoder import CausalDecoder
from megatron.architectures.row_rules import RowRules
from megatron.records import visibility
from megatron.records.example import SequencePair

END = 0


def arrange(tokens, *, inputs=0, starts=(), **rules):
    tokens = np.asarray(tokens, np.int32)
    example = SequencePair(tokens[:inputs], tokens[inputs:], np.asarray(starts, np.int32))
    return CausalDecoder().arrange([example], RowRules(seq_length=len(tokens) - 1, end_token=END, **rules))


def test_each_position_predicts_the_next():
    row = arrange([5, 6, 7, 8, 9])
    assert row.tokens.tolist() == [5, 6, 7, 8]
    assert row.labels.tolist() == [6, 7, 8, 9]
    assert row.loss_mask.tolist() == [1, 1, 1, 1]
    assert row.position_ids.tolist() == [0, 1, 2, 3]
    assert visibility.draw(row.intervals, 4) == "1 0 0 0\n1 1 0 0\n1 1 1 0\n1 1 1 1"


@pytest.mark.parametrize(
    ("inputs", "loss_mask"),
    [(0, [1, 1, 1, 1]), (1, [1, 1, 1, 1]), (2, [0, 1, 1, 1]), (4, [0, 0, 0, 1]), (5, [0, 0, 0, 0])],
)
def test_loss_where_the_label_is_a_target(inputs, loss_mask):
    """The last input predicts the first target; the very first token is predicted by nothing."""
    assert arrange([5, 6, 7, 8, 9], inputs=inputs).loss_mask.tolist() == loss_mask


def test_documents_restart_masks_and_positions_as_the_rules_say():
    tokens, starts = [5, 6, END, 7, 8, END, 9], [3, 6]
    plain = arrange(tokens, starts=starts)
    assert plain.position_ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert plain.intervals[:, 0].tolist() == [0] * 6

    masked = arrange(tokens, starts=starts, reset_attention_mask=True)
    assert masked.position_ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert visibility.draw(masked.intervals, 6).splitlines()[2:5] == ["1 1 1 0 0 0", "0 0 0 1 0 0", "0 0 0 1 1 0"]

    counted = arrange(tokens, starts=starts, reset_position_ids=True)
    assert counted.position_ids.tolist() == [0, 1, 2, 0, 1, 2]
    assert counted.intervals[:, 0].tolist() == [0] * 6


def test_the_token_after_an_end_of_document_may_carry_no_loss():
    tokens = [5, END, 7, 8, END, END]
    assert arrange(tokens).loss_mask.tolist() == [1, 1, 1, 1, 1]
    assert arrange(tokens, eod_mask_loss=True).loss_mask.tolist() == [1, 0, 1, 1, 0]
    assert arrange(tokens, inputs=4, eod_mask_loss=True).loss_mask.tolist() == [0, 0, 0, 1, 0]


def test_a_start_token_with_the_id_of_the_end_token_ends_no_document():
    """Where a vocabulary has one token for start, padding and end; 5 is a label like any other."""
    tokens, rules = np.array([5, END, 7, 8], np.int32), {"begins_with_start_token": True, "start_token": END}
    examples = [SequencePair(tokens[:0], tokens), SequencePair(tokens[:0], tokens[2:])]
    row = CausalDecoder().arrange(examples, RowRules(seq_length=7, end_token=END, eod_mask_loss=True, **rules))
    assert row.tokens.tolist() == [END, 5, END, 7, END, 7, END]
    assert row.labels.tolist() == [5, END, 7, 8, 7, 8, END]
    assert row.loss_mask.tolist() == [1, 1, 0, 1, 1, 1, 0]


def test_an_example_that_is_too_long_is_refused():
    example = SequencePair(np.zeros(0, np.int32), np.zeros(7, np.int32))
    with pytest.raises(ValueError, match="7 tokens do not fit a row of 5"):
        CausalDecoder().arrange([example], RowRules(seq_length=5, end_token=END))


def test_the_study_begins_rows_with_the_start_token():
    """Wang et al. 2022's full_lm, rows of 4 in place of 626, documents 11 12 13 and 21 22."""
    rules = RowRules(seq_length=4, end_token=1, start_token=0, pad_token=0, begins_with_start_token=True)
    expected = [
        ([11, 12, 13, 1], [0, 11, 12, 13], [1, 1, 1, 1], "1 0 0 0\n1 1 0 0\n1 1 1 0\n1 1 1 1"),
        ([21, 22, 1], [0, 21, 22, 0], [1, 1, 1, 0], "1 0 0 0\n1 1 0 0\n1 1 1 0\n0 0 0 0"),
    ]
    for targets, tokens, loss_mask, mask in expected:
        example = SequencePair(np.zeros(0, np.int32), np.array(targets, np.int32))
        row = CausalDecoder().arrange([example], rules)
        assert row.tokens.tolist() == tokens
        assert row.labels.tolist() == targets + [0] * (4 - len(targets))
        assert row.loss_mask.tolist() == loss_mask
        assert visibility.draw(row.intervals, 4) == mask
    assert CausalDecoder().room(rules).total == 4


@settings(deadline=None)
@given(data=st.data(), length=st.integers(1, 30))
def test_what_holds_for_every_row(data, length):
    tokens = np.array(data.draw(st.lists(st.integers(0, 9), min_size=length + 1, max_size=length + 1)))
    inputs = data.draw(st.integers(0, length + 1))
    starts = sorted(data.draw(st.sets(st.integers(0, length))))
    rules = {name: data.draw(st.booleans()) for name in ("reset_attention_mask", "reset_position_ids", "eod_mask_loss")}
    row = arrange(tokens, inputs=inputs, starts=starts, **rules)
    visibility.check(row.intervals, length)
    np.testing.assert_array_equal(row.tokens[1:], row.labels[:-1])
    for q in range(length):
        begin = max([0, *(start for start in starts if start <= q)])
        sees = list(range(row.intervals[q, 0], row.intervals[q, 1]))
        assert sees == list(range(begin if rules["reset_attention_mask"] else 0, q + 1))
        assert row.position_ids[q] == (q - begin if rules["reset_position_ids"] else q)
        has_loss = q + 1 >= inputs and not (rules["eod_mask_loss"] and row.tokens[q] == END)
        assert row.loss_mask[q] == float(has_loss)


def test_matrices_that_write_to_the_residual_stream_start_smaller():
    from megatron.modeling.options import ModelOptions

    options = ModelOptions(num_layers=8, init_method_std=0.04)
    std = CausalDecoder().initial_std
    for name in ("self_attention.linear_proj.weight", "mlp.linear_fc2.weight"):
        assert std(options, f"decoder.layers.3.{name}") == pytest.approx(0.01)
    for name in ("self_attention.linear_qkv.weight", "mlp.linear_fc1.weight"):
        assert std(options, f"decoder.layers.3.{name}") == 0.04
    assert std(options, "embedding.word_embeddings.weight") == std(options, "output_layer.weight") == 0.04
