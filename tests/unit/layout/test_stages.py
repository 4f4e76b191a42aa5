"""Which layers live where, against megatron-core's own arithmetic."""

import itertools
from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megatron.layout.options import LayoutOptions
from megatron.layout.stages import balanced_chunks, even_chunks, layers_per_rank, stages_of
from megatron.modeling.config import transformer_config
from megatron.modeling.options import ModelOptions
from tests.oracles.one_process_model import DEVICE, one_process_grid


@st.composite
def layouts(draw):
    """(LayoutOptions, number of layers), even and uneven, interleaved or not."""
    ranks = draw(st.integers(2, 6))
    chunks = draw(st.sampled_from([None, 2, 3]))
    unit = chunks or 1
    first = draw(st.none() | st.integers(1, 4).map(lambda n: n * unit))
    last = draw(st.none() | st.integers(1, 4).map(lambda n: n * unit))
    middle_ranks = ranks - (first is not None) - (last is not None)
    layers = (first or 0) + (last or 0) + middle_ranks * unit * draw(st.integers(1, 4))
    options = LayoutOptions(
        pipeline_model_parallel_size=ranks,
        num_virtual_stages_per_pipeline_rank=chunks,
        decoder_first_pipeline_num_layers=first,
        decoder_last_pipeline_num_layers=last,
    )
    return options, layers


@settings(deadline=None)
@given(layouts())
def test_stages_are_those_that_megatron_core_builds(layout):
    options, layers = layout
    one_process_grid()  # megatron-core asks it about context parallelism
    from megatron.core.transformer.transformer_block import get_num_layers_to_build
    from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

    model = ModelOptions(num_layers=layers, hidden_size=8, num_attention_heads=2)
    counts = even_chunks(options, layers)
    config = transformer_config(model, options, DEVICE, torch.float32, counts)
    core = "megatron.core.parallel_state.get_"
    for stage in stages_of(options, counts):
        chunks = options.num_virtual_stages_per_pipeline_rank
        vp_stage = stage.virtual_rank if chunks else None
        with (
            mock.patch(core + "pipeline_model_parallel_rank", lambda rank=stage.pipeline_rank: rank),
            mock.patch(core + "virtual_pipeline_model_parallel_world_size", lambda size=chunks: size),
        ):
            assert stage.num_layers == get_num_layers_to_build(config, vp_stage, stage.pipeline_rank)
            assert stage.first_layer == get_transformer_layer_offset(config, vp_stage, stage.pipeline_rank)


@settings(deadline=None)
@given(layouts())
def test_every_layer_has_one_place(layout):
    options, layers = layout
    stages = stages_of(options, even_chunks(options, layers))
    held = [number for stage in stages for number in range(stage.first_layer, stage.first_layer + stage.num_layers)]
    assert held == list(range(layers))
    assert [stage.holds_embedding for stage in stages] == [True] + [False] * (len(stages) - 1)
    assert [stage.holds_head for stage in stages] == [False] * (len(stages) - 1) + [True]
    of_rank = dict.fromkeys(range(options.pipeline_model_parallel_size), 0)
    for stage in stages:
        of_rank[stage.pipeline_rank] += stage.num_layers
    assert list(of_rank.values()) == layers_per_rank(options, layers)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(None, None, [2, 2, 2]), (1, None, [1, 3, 3]), (None, 4, [2, 2, 4]), (3, 1, [3, 4, 1])],
)
def test_worked_examples(first, last, expected):
    options = LayoutOptions(
        pipeline_model_parallel_size=3, decoder_first_pipeline_num_layers=first, decoder_last_pipeline_num_layers=last
    )
    assert layers_per_rank(options, sum(expected)) == expected


def test_one_process_holds_everything():
    (stage,) = stages_of(LayoutOptions(), [5])
    assert (stage.first_layer, stage.num_layers, stage.holds_embedding, stage.holds_head) == (0, 5, True, True)


def every_split(costs, parts):
    """All ways to cut a list into so many parts that are not empty."""
    for cuts in itertools.combinations(range(1, len(costs)), parts - 1):
        yield [end - start for start, end in itertools.pairwise([0, *cuts, len(costs)])]


def costs_of_chunks(costs, counts, head):
    """What each chunk costs; exact, as all costs are halves."""
    ends = [0, *itertools.accumulate(counts)]
    sums = [sum(costs[start:end]) for start, end in itertools.pairwise(ends)]
    return [*sums[:-1], sums[-1] + head]


@given(
    costs=st.lists(st.sampled_from([0.5, 1.0, 1.5, 3.0, 5.0]), min_size=4, max_size=9),
    chunks=st.sampled_from([1, 2, 4]),
    head=st.sampled_from([0.0, 2.0, 100.0]),
)
@example(costs=[0.5, 3.0, 1.5, 1.5, 0.5], chunks=4, head=100.0)  # which hides how uneven the others are
def test_the_dearest_of_balanced_chunks_is_as_cheap_as_can_be_and_the_others_as_even(costs, chunks, head):
    def rank(counts):
        held = costs_of_chunks(costs, counts, head)
        return max(held), sum(cost**2 for cost in held)

    found = balanced_chunks(LayoutOptions(pipeline_model_parallel_size=chunks), costs, head)
    assert len(found) == chunks and sum(found) == len(costs) and min(found) >= 1
    assert rank(found) == min(rank(counts) for counts in every_split(costs, chunks))


def test_equal_layers_are_split_evenly():
    options = LayoutOptions(pipeline_model_parallel_size=2, num_virtual_stages_per_pipeline_rank=2)
    assert balanced_chunks(options, [1.0] * 8) == [2, 2, 2, 2] == even_chunks(options, 8)
