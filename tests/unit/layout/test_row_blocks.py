"""Rows of stacked projections: whose they are in the whole matrix, and in every shard of it."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.layout.initial_weights import draw_weights, global_names, mark_row_blocks
from megatron.layout.row_blocks import PADDING, block_of_rows
from megatron.modeling.options import ModelOptions
from megatron.modeling.stacked_projections import stacked_widths
from tests.oracles.one_process_model import VOCABULARY, build_decoder, one_process_grid, recipe_of

MODEL = {
    "num_layers": 1,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 4,
    "ffn_hidden_size": 24,
    "activation": "swiglu",
    "make_vocab_size_divisible_by": 64,
}


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 4))
def test_blocks_take_turns(widths: list[int], groups: int) -> None:
    expected = [block for _ in range(groups) for block, width in enumerate(widths) for _ in range(width)]
    assert block_of_rows(widths, len(expected)).tolist() == expected


def test_the_projections_of_a_decoder() -> None:
    _, chunk = build_decoder(recipe_of(MODEL, max_positions=8))
    blocks = {name: parameter.row_blocks for name, parameter in global_names(chunk)}
    layer = "decoder.layers.0"
    group = [0] * 8 + [1] * 4 + [2] * 4  # two query heads, a key head, a value head
    assert blocks[f"{layer}.self_attention.linear_qkv.weight"].numbers.tolist() == group * 2
    assert blocks[f"{layer}.self_attention.linear_qkv.bias"].sizes == (16, 8, 8)
    assert blocks[f"{layer}.mlp.linear_fc1.weight"].numbers.tolist() == [0] * 24 + [1] * 24
    assert blocks[f"{layer}.mlp.linear_fc2.weight"].sizes == (32,)
    table = blocks["embedding.word_embeddings.weight"]
    assert table.numbers.tolist() == [0] * VOCABULARY + [PADDING] * 28 and table.sizes == (VOCABULARY,)


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_knows_its_own_rows(rank: int) -> None:
    """A shard of two holds one group of query, key and value rows, half the gates and half of what they gate."""
    grid = dataclasses.replace(one_process_grid(), tensor_size=2, tensor_rank=rank)
    _, chunk = build_decoder(recipe_of({**MODEL, "num_query_groups": 1, "ffn_hidden_size": 12}, max_positions=8))
    options = ModelOptions(**MODEL)
    mark_row_blocks(chunk, grid, lambda name: stacked_widths(options, name), vocabulary_size=150, gated=True)
    blocks = {name: parameter.row_blocks for name, parameter in global_names(chunk)}
    fc1 = blocks["decoder.layers.0.mlp.linear_fc1.weight"]
    assert fc1.numbers.tolist() == [0] * 12 + [1] * 12 and fc1.sizes == (24, 24)
    table = blocks["embedding.word_embeddings.weight"]  # rows 128 to 255 of 256 on the second rank
    assert table.sizes == (150,)
    assert (table.numbers == PADDING).sum() == (106 if rank else 0)


def test_each_projection_is_drawn_with_its_own_width() -> None:
    _, chunk = build_decoder(recipe_of({**MODEL, "hidden_size": 256}, max_positions=8))
    options = ModelOptions(**{**MODEL, "hidden_size": 256})

    def initial_std(name: str) -> float | tuple[float, ...]:
        return (1.0, 0.1, 0.01) if "linear_qkv" in name else 0.5

    draw_weights(
        chunk,
        one_process_grid(),
        1,
        initial_std,
        lambda name: stacked_widths(options, name),
        vocabulary_size=VOCABULARY,
        gated=True,
        tied=True,
    )
    weight = dict(global_names(chunk))["decoder.layers.0.self_attention.linear_qkv.weight"].detach()
    groups = weight.view(2, 16, 256)
    for rows, std in ((slice(0, 8), 1.0), (slice(8, 12), 0.1), (slice(12, 16), 0.01)):
        assert float(groups[:, rows].std()) == pytest.approx(std, rel=0.1)
