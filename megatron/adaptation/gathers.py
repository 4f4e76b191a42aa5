"""Which entries of a tensor another tensor is made of, and in which order.

Every change of form between our architectures is a choice of rows or columns: nothing is computed, so that weights come
through to the bit in every precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from megatron.modeling.options import ModelOptions
from megatron.modeling.positions import relative_buckets


def query_rows(model: ModelOptions) -> Tensor:
    """Rows of linear_q within linear_qkv, int64 [heads * d].

    linear_qkv stacks for each group the rows of its query heads, of its key and of its value, d rows each.
    """
    return _rows_by_group(model)[:, :-2].reshape(-1)


def key_value_rows(model: ModelOptions) -> Tensor:
    """Rows of linear_kv within linear_qkv, int64 [groups * 2 * d]: key and value of each group."""
    return _rows_by_group(model)[:, -2:].reshape(-1)


def buckets_of_encoder(model: ModelOptions) -> Tensor:
    """For each bucket of an encoder's table the bucket of a decoder's table that covers its distances, int64 [n].

    A decoder knows distances behind a query alone. Keys ahead get what it learned for the same distance behind, which
    is how far away they are; its own bucket for them, 0, says nothing of distance.
    """
    distance = _typical_distances(model, bidirectional=True)
    return _buckets(model, -distance.abs(), bidirectional=False)


def buckets_of_decoder(model: ModelOptions) -> Tensor:
    """For each bucket of a decoder's table the bucket of an encoder's table that covers its distances, int64 [n]."""
    distance = _typical_distances(model, bidirectional=False)
    return _buckets(model, distance, bidirectional=True)


def _rows_by_group(model: ModelOptions) -> Tensor:
    """[groups, heads of a group + 2, d] row numbers of linear_qkv."""
    per_group = model.num_attention_heads // model.query_groups + 2
    rows = torch.arange(model.query_groups * per_group * model.head_size)
    return rows.view(model.query_groups, per_group, model.head_size)


def _typical_distances(model: ModelOptions, *, bidirectional: bool) -> Tensor:
    """The middle one of the distances k - q that fall into each bucket, int64 [n]; 0 for a bucket of none.

    Buckets beyond --relative-attention-max-distance are open; the last one counts up to it.
    """
    furthest = model.relative_attention_max_distance
    distance = torch.arange(-furthest, furthest + 1 if bidirectional else 1)
    bucket = _buckets(model, distance, bidirectional=bidirectional)
    typical = torch.zeros(model.relative_attention_num_buckets, dtype=torch.int64)
    for number in bucket.unique().tolist():
        inside = distance[bucket == number]
        typical[number] = inside[len(inside) // 2]
    return typical


def _buckets(model: ModelOptions, distance: Tensor, *, bidirectional: bool) -> Tensor:
    return relative_buckets(
        distance,
        model.relative_attention_num_buckets,
        model.relative_attention_max_distance,
        bidirectional=bidirectional,
    )
