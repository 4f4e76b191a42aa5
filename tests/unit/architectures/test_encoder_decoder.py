"""How the encoder-decoder arranges examples into two rows: the study's worked examples, and what holds for all rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.architectures.encoder_decoder import EncoderDecoder, layer_costs
from megatron.architectures.row_rules import RowRules
from megatron.layout.options import LayoutOptions
from megatron.modeling.options import ModelOptions
from megatron.records import visibility
from megatron.records.example import SequencePair


def pair(inputs, targets, *, is_complete=False):
    return SequencePair(np.array(inputs, np.int32), np.array(targets, np.int32), is_complete=is_complete)


def arrange(examples, inputs, targets):
    rules = RowRules(seq_length=inputs, decoder_seq_length=targets, end_token=1, start_token=0, pad_token=0)
    return EncoderDecoder().arrange(examples, rules)


def test_two_folded_texts_of_the_study():
    """Prefix LM, rows of 6, A = 10 .. 15 cut at 2 and B = 20 .. 25 cut at 4."""
    row = arrange([pair([10, 11], [12, 13, 14, 15]), pair([20, 21, 22, 23], [24, 25])], 6, 6)
    assert row.encoder.tokens.tolist() == [10, 11, 20, 21, 22, 23]
    assert row.encoder.position_ids.tolist() == [0, 1, 0, 1, 2, 3]
    assert row.encoder.intervals.tolist() == [[0, 2]] * 2 + [[2, 6]] * 4
    assert row.labels.tolist() == [12, 13, 14, 15, 24, 25]
    assert row.tokens.tolist() == [0, 12, 13, 14, 0, 24]
    assert row.position_ids.tolist() == [0, 1, 2, 3, 0, 1]
    assert row.loss_mask.tolist() == [1] * 6
    assert row.intervals.tolist() == [[0, 1], [0, 2], [0, 3], [0, 4], [4, 5], [4, 6]]
    assert visibility.draw(row.encoder.cross_intervals, 6).splitlines() == ["1 1 0 0 0 0"] * 4 + ["0 0 1 1 1 1"] * 2


def test_span_corruption_of_t5():
    example = pair([10, 11, 12, 13, 99, 15, 16, 98], [99, 14, 98, 17, 18, 19], is_complete=True)
    row = arrange([example], 9, 7)
    assert row.encoder.tokens.tolist() == [10, 11, 12, 13, 99, 15, 16, 98, 1]
    assert row.labels.tolist() == [99, 14, 98, 17, 18, 19, 1]
    assert row.tokens.tolist() == [0, 99, 14, 98, 17, 18, 19]
    assert row.loss_mask.all()
    assert visibility.dense(row.encoder.intervals, 9).all()
    assert visibility.dense(row.encoder.cross_intervals, 9).all()
    assert (visibility.dense(row.intervals, 7) == np.tri(7, dtype=bool)).all()


@st.composite
def examples_of_a_row(draw):
    complete = draw(st.booleans())
    tokens = iter(range(10, 200))
    sizes = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4))
    return [
        pair([next(tokens) for _ in range(i)], [next(tokens) for _ in range(t)], is_complete=complete) for i, t in sizes
    ]


@settings(deadline=None)
@given(examples=examples_of_a_row(), spare=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_what_holds_for_every_row(examples, spare):
    """Each target is predicted once, from its own example's inputs and earlier targets and from nothing else."""
    end = [1] if examples[0].is_complete else []
    inputs = sum(len(example.inputs) + len(end) for example in examples) + spare[0]
    targets = sum(len(example.targets) + len(end) for example in examples) + spare[1]
    row = arrange(examples, inputs, targets)
    for intervals, keys in (
        (row.intervals, targets),
        (row.encoder.intervals, inputs),
        (row.encoder.cross_intervals, inputs),
    ):
        visibility.check(intervals, keys)
    predicted = iter(np.flatnonzero(row.loss_mask))
    for example in examples:
        for number, target in enumerate([*example.targets.tolist(), *end]):
            position = next(predicted)
            first, last = row.intervals[position]
            assert row.labels[position] == target
            assert row.tokens[first:last].tolist() == [0, *example.targets.tolist()[:number]]
            first, last = row.encoder.cross_intervals[position]
            assert row.encoder.tokens[first:last].tolist() == [*example.inputs.tolist(), *end]
    assert next(predicted, None) is None


def test_rows_need_room_for_their_examples():
    for size in ((3, 9), (9, 3)):
        with pytest.raises(ValueError, match="4 tokens do not fit a row of 3"):
            arrange([pair([5, 6, 7, 8], [5, 6, 7, 8])], *size)


def test_stages_weigh_what_their_layers_cost():
    """Rows of 512 and 114: decoder layers are cheap, so the stage that holds them holds more."""
    model = ModelOptions(num_layers=6, hidden_size=64, num_attention_heads=4)
    options = LayoutOptions(pipeline_model_parallel_size=2)
    costs, _ = layer_costs(model, EncoderDecoder().layers(model, (512, 114)), (512, 114), 128)
    assert costs == [costs[0]] * 6 + [costs[-1]] * 6 and costs[-1] < costs[0]
    first, second = EncoderDecoder().layers_of_chunks(model, options, (512, 114), 128)
    assert first < second and first + second == 12
    # A head over many words takes the place of layers.
    assert EncoderDecoder().layers_of_chunks(model, options, (512, 114), 100_000)[1] < second


def test_costs_are_those_of_the_products_that_torch_computes():
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from megatron.attention import reference
    from megatron.data.collate import collate
    from tests.oracles.one_process_model import build_decoder, recipe_of

    def attend(*arguments, **settings):
        return reference.attend(*arguments, **settings).float()

    lengths = (24, 10)
    batch = collate([arrange([pair(range(24), range(10))], *lengths)])
    flops = {}
    for layers in ((1, 1), (2, 1), (1, 2)):
        model = {"encoder_num_layers": layers[0], "decoder_num_layers": layers[1], "hidden_size": 32}
        model |= {"num_attention_heads": 4, "num_query_groups": 2, "activation": "swiglu"}
        recipe = recipe_of(model, max_positions=24, architecture="encoder_decoder", lengths=lengths)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            build_decoder(recipe, attend=attend)[1](batch)
        flops[layers] = counter.get_total_flops() / 2
    options = ModelOptions(**model)
    (encoder, *_, decoder), head = layer_costs(options, EncoderDecoder().layers(options, lengths), lengths, 128)
    scores = 2 * 32 * 10**2 / 2  # the reference computes the hidden half as well
    counted = flops[2, 1] - flops[1, 1], flops[1, 2] - flops[1, 1]
    assert counted == (pytest.approx(encoder, rel=0.02), pytest.approx(decoder + scores, rel=0.02))
    assert flops[1, 1] - sum(counted) == pytest.approx(head)
