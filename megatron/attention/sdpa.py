"""torch.nn.functional.scaled_dot_product_attention as a backend.

Its causal kernels are fast and write no scores; any other mask it takes as a dense tensor only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from megatron.attention import one_query
from megatron.attention.distance_bias import expand_distance_bias
from megatron.attention.one_query import is_one_query
from megatron.device.capabilities import prefers_cudnn_attention
from megatron.records.batch import Visibility

_CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


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
    if is_one_query(query):
        return one_query.attend(
            query, key, value, visibility, scale=scale, distance_bias=distance_bias, dropout_p=dropout_p
        )
    num_queries, num_keys = query.shape[2], key.shape[2]
    is_grouped = key.shape[1] != query.shape[1]
    if visibility.is_causal and num_queries == num_keys and distance_bias is None:
        with _kernel_order(query):
            return scaled_dot_product_attention(
                query, key, value, is_causal=True, dropout_p=dropout_p, scale=scale, enable_gqa=is_grouped
            )
    mask = visibility.dense_without_empty_rows
    if distance_bias is not None:
        mask = torch.where(mask, expand_distance_bias(distance_bias, num_keys), -torch.inf).to(query.dtype)
    context = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout_p, scale=scale, enable_gqa=is_grouped
    )
    # Also in the backward pass: a zeroed row sends a zero gradient into the kernel.
    return torch.where(visibility.seen, context, 0.0)


def _kernel_order(query: Tensor) -> AbstractContextManager[None]:
    if prefers_cudnn_attention(query.device):
        return sdpa_kernel(_CUDNN_FIRST, set_priority=True)
    return nullcontext()
