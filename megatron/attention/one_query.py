"""Attention of one query of each text, as when texts are written on: products with a vector, bound by memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from megatron.records.batch import Visibility


def is_one_query(query: Tensor) -> bool:
    """Tiles would copy all keys and values to use each of them once. On CUDA other kernels do this well."""
    return query.device.type == "cpu" and query.shape[2] == 1


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
    """Attention over key intervals: the signature and the promises of `registry.AttentionBackend`, for s_q = 1.

    The heads that share keys stand where a kernel expects queries, so that keys are read once for all of them.
    """
    batch, num_heads, _, width = query.shape
    num_groups, num_keys = key.shape[1], key.shape[2]
    mask = None if visibility.is_full else visibility.dense_without_empty_rows
    if distance_bias is not None:
        bias = distance_bias.view(1, num_groups, num_heads // num_groups, num_keys)
        mask = (bias if mask is None else torch.where(mask, bias, -torch.inf)).to(query.dtype)
    context = scaled_dot_product_attention(
        query.reshape(batch, num_groups, -1, width), key, value, attn_mask=mask, dropout_p=dropout_p, scale=scale
    ).reshape(query.shape)
    return context if visibility.is_full else torch.where(visibility.seen, context, 0.0)
