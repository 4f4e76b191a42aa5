"""Rows and buckets that adaptation chooses, against projections and tables made by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron.adaptation import gathers
from megatron.modeling.options import ModelOptions
from megatron.modeling.positions import relative_buckets


@given(groups=st.integers(1, 4), per_group=st.integers(1, 3), width=st.integers(1, 5))
def test_cross_attention_gets_the_heads_of_self_attention(groups: int, per_group: int, width: int) -> None:
    heads = groups * per_group
    model = ModelOptions(
        hidden_size=heads * width, num_attention_heads=heads, num_query_groups=groups, kv_channels=width
    )
    stacked, queries, keys_values = [], [], []
    for group in range(groups):
        own = [("q", group * per_group + head, row) for head in range(per_group) for row in range(width)]
        kv = [(part, group, row) for part in "kv" for row in range(width)]
        stacked += own + kv
        queries += own
        keys_values += kv
    assert [stacked[row] for row in gathers.query_rows(model).tolist()] == queries
    assert [stacked[row] for row in gathers.key_value_rows(model).tolist()] == keys_values


@pytest.fixture
def model() -> ModelOptions:
    return ModelOptions(position_embedding_type="relative")


def table_of(model: ModelOptions, *, bidirectional: bool) -> torch.Tensor:
    """[1, buckets]: the mean distance of each bucket, as a table that fell with distance would hold it."""
    furthest = model.relative_attention_max_distance
    distance = torch.arange(-furthest, furthest + 1)
    bucket = relative_buckets(distance, 32, furthest, bidirectional=bidirectional)
    return torch.stack([distance[bucket == n].abs().float().mean().nan_to_num() for n in range(32)])[None]


def bias_of(table: torch.Tensor, distance: torch.Tensor, *, bidirectional: bool) -> torch.Tensor:
    return table[0, relative_buckets(distance, 32, 128, bidirectional=bidirectional)]


def test_an_encoder_gets_a_decoders_bias_for_near_keys_on_both_sides(model: ModelOptions) -> None:
    table = torch.randn(1, 32)
    adapted = table[:, gathers.buckets_of_encoder(model)]
    near = torch.arange(0, 8)  # both tables have a bucket for each of these distances
    before = bias_of(table, -near, bidirectional=False)
    assert torch.equal(bias_of(adapted, -near, bidirectional=True), before)
    assert torch.equal(bias_of(adapted, near[1:], bidirectional=True), before[1:])


def test_far_buckets_stand_for_about_the_same_distances(model: ModelOptions) -> None:
    far = torch.arange(8, 129)
    to_encoder = table_of(model, bidirectional=False)[:, gathers.buckets_of_encoder(model)]
    to_decoder = table_of(model, bidirectional=True)[:, gathers.buckets_of_decoder(model)]
    for signed in (far, -far):
        ratio = bias_of(to_encoder, signed, bidirectional=True) / far
        assert ratio.min() > 0.6 and ratio.max() < 1.6
    ratio = bias_of(to_decoder, -far, bidirectional=False) / far
    assert ratio.min() > 0.6 and ratio.max() < 1.6


def test_a_decoder_never_takes_what_an_encoder_learnt_of_keys_ahead(model: ModelOptions) -> None:
    ahead = relative_buckets(torch.arange(1, 129), 32, 128, bidirectional=True).unique()
    assert not set(ahead.tolist()) & set(gathers.buckets_of_decoder(model).tolist())
