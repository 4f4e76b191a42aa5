"""Query blocks cover what is visible, once, and little more."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.attention import query_blocks as module
from megatron.attention.query_blocks import query_blocks
from megatron.records.batch import Visibility
from tests.oracles.attention_cases import KINDS, random_intervals


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 300), st.sampled_from(KINDS), st.integers(0, 10**6))
def test_every_visible_pair_is_in_one_block(num_queries, num_keys, kind, seed):
    visibility = Visibility(random_intervals(kind, 2, num_queries, num_keys, seed), num_keys)
    rebuilt = torch.zeros(2, num_queries, num_keys, dtype=torch.int64)
    for block in query_blocks(visibility):
        own_keys = block.end_key - block.first_key
        own = Visibility(block.intervals, own_keys).dense[:, 0]
        rebuilt[:, block.first_query : block.end_query, block.first_key : block.end_key] += own
        assert own.any(1).any(0)[[0, -1]].all()  # first and last key of a block are needed
    assert torch.equal(rebuilt, visibility.dense[:, 0].long())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 10**6))
def test_distances_of_a_block(num_queries, num_keys, seed):
    """The slice of a distance bias, read as the bias of the block, is the block of the whole bias."""
    bias = torch.arange(num_queries + num_keys - 1)
    distance = torch.arange(num_keys) - torch.arange(num_queries)[:, None]
    whole = bias[distance + num_queries - 1]
    for block in query_blocks(Visibility(random_intervals("any", 2, num_queries, num_keys, seed), num_keys)):
        queries, keys = block.end_query - block.first_query, block.end_key - block.first_key
        own_distance = torch.arange(keys) - torch.arange(queries)[:, None]
        own = bias[block.distances(num_queries)][own_distance + queries - 1]
        assert torch.equal(own, whole[block.first_query : block.end_query, block.first_key : block.end_key])


def test_causal_blocks_skip_what_lies_ahead():
    visibility = Visibility(random_intervals("causal", 1, 512, 512), 512, is_causal=True)
    computed = sum((b.end_query - b.first_query) * (b.end_key - b.first_key) for b in query_blocks(visibility))
    assert computed <= 0.63 * 512 * 512
    assert query_blocks(visibility) is query_blocks(visibility), "found once a step, not once a layer"


def test_no_waiting_for_a_device(monkeypatch):
    monkeypatch.setattr(module, "reads_back_for_free", lambda device: False)
    (block,) = query_blocks(Visibility(random_intervals("any", 1, 300, 200), 200))
    assert (block.first_query, block.end_query, block.first_key, block.end_key) == (0, 300, 0, 200)
