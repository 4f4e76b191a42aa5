"""Attention from two matrix products and the fused interval softmax between them."""

from __future__ import annotations

import torch
from torch import Tensor

from megatron.attention.interval_softmax import interval_softmax
from megatron.records.batch import Visibility


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visibility: Visibility,
    *,
    scale: float,
    distance_bias: Tensor | None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Attention over key intervals: the signature and the promises of `registry.AttentionBackend`."""
    batch, num_heads, num_queries, width = query.shape
    num_groups, num_keys = key.shape[1], key.shape[2]
    grouped_query = query.reshape(batch * num_groups, -1, width)  # the heads of a group stand under one another
    scores = torch.bmm(grouped_query, key.reshape(batch * num_groups, num_keys, width).transpose(1, 2))
    scores = scores.view(batch, num_heads, num_queries, num_keys)
    probabilities = interval_softmax(scores, visibility.intervals, distance_bias, scale)
    probabilities = torch.dropout(probabilities, dropout_p, train=dropout_p > 0)
    context = torch.bmm(
        probabilities.view(batch * num_groups, -1, num_keys), value.reshape(batch * num_groups, num_keys, width)
    )
    return context.view(batch, num_heads, num_queries, width)
