"""Positions that enter through attention, against transformers' own functions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import T5Config
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from megatron.attention.distance_bias import expand_distance_bias
from megatron.modeling.positions import alibi_slopes, distances, relative_buckets


@settings(deadline=None)
@given(heads=st.integers(1, 100))
def test_alibi_slopes_are_blooms(heads):
    two_keys = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)
    assert torch.allclose(alibi_slopes(heads), two_keys[:, 0, 1], rtol=1e-6)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (32, 256), (16, 64), (8, 20), (64, 1000), (4, 9)])
def test_relative_buckets_are_t5s(buckets, furthest, bidirectional):
    every_distance = torch.arange(-2200, 2201)
    expected = T5Attention._relative_position_bucket(every_distance, bidirectional, buckets, furthest)
    got = relative_buckets(every_distance, buckets, furthest, bidirectional=bidirectional)
    assert torch.equal(got, expected)
    assert got.min() == 0 and got.max() == buckets - 1


@pytest.mark.parametrize("is_decoder", [True, False])
def test_bias_by_distance_is_t5s_matrix(is_decoder):
    config = T5Config(num_heads=3, d_model=12, d_kv=4, is_decoder=is_decoder, relative_attention_max_distance=20)
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    queries, keys = 40, 50
    expected = theirs.compute_bias(queries, keys, past_seen_tokens=keys - queries)[0]
    buckets = relative_buckets(
        distances(queries, keys, torch.device("cpu")),
        config.relative_attention_num_buckets,
        config.relative_attention_max_distance,
        bidirectional=not is_decoder,
    )
    table = theirs.relative_attention_bias.weight.t()
    assert torch.equal(expand_distance_bias(table[:, buckets], keys), expected)
