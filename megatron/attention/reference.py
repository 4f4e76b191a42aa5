"""Attention as the textbook has it, in float64 with a dense mask: what every backend is measured against.

Source: Vaswani et al. 2017, section 3.2.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
    """The backend signature of `registry.AttentionBackend`, but the result is float64. Slow, and O(s^2) in memory."""
    num_queries, num_keys, num_heads = query.shape[2], key.shape[2], query.shape[1]
    heads_per_group = num_heads // key.shape[1]
    key = key.double().repeat_interleave(heads_per_group, dim=1)
    value = value.double().repeat_interleave(heads_per_group, dim=1)

    scores = scale * torch.einsum("bhqd,bhkd->bhqk", query.double(), key)
    if distance_bias is not None:
        distances = torch.arange(num_keys) - torch.arange(num_queries)[:, None]
        scores = scores + distance_bias.double()[:, distances + num_queries - 1]
    visible = visibility.dense
    # Subtracting the largest visible score changes nothing but the range; empty rows subtract zero.
    largest = torch.where(visible, scores, -torch.inf).amax(-1, keepdim=True)
    largest = torch.where(visibility.seen, largest, 0.0).detach()
    weights = torch.where(visible, torch.exp(torch.where(visible, scores - largest, 0.0)), 0.0)
    probabilities = weights / torch.where(visibility.seen, weights.sum(-1, keepdim=True), 1.0)
    probabilities = torch.dropout(probabilities, dropout_p, train=dropout_p > 0)
    return torch.einsum("bhqk,bhkd->bhqd", probabilities, value)
