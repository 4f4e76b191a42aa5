"""Attention whose softmax reads visible keys only, fused with what stands around it as far as the device allows.

On CPU the two products and the softmax are one native op that keeps nothing of size s^2. With dropout, in float64 and
on CUDA there are two products and the fused interval softmax between them: queries are taken in blocks (one on CUDA),
each multiplied with the keys it sees only; the scores become probabilities in place, and the gradient of the
probabilities becomes that of the scores in place, so a layer keeps one matrix.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from megatron.attention import one_query
from megatron.attention.interval_softmax import interval_softmax
from megatron.attention.one_query import is_one_query
from megatron.attention.query_blocks import QueryBlock, query_blocks
from megatron.device.native import native_ops_available
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
    if is_one_query(query):
        return one_query.attend(
            query, key, value, visibility, scale=scale, distance_bias=distance_bias, dropout_p=dropout_p
        )
    if native_ops_available() and not dropout_p and _takes_tiles(query):
        return torch.ops.triarch.interval_attention(query, key, value, visibility.intervals, distance_bias, scale)[0]
    batch, num_heads, num_queries, width = query.shape
    num_groups, num_keys = key.shape[1], key.shape[2]
    # The heads that share keys stand side by side; r = h / g of them. Views, whichever way the storage is permuted.
    query = query.reshape(batch * num_groups, num_heads // num_groups, num_queries, width)
    key, value = (tensor.reshape(batch * num_groups, num_keys, width) for tensor in (key, value))
    if native_ops_available():
        context = _BlockedAttention.apply(query, key, value, distance_bias, query_blocks(visibility), scale, dropout_p)
    else:
        context = _plain_attention(query, key, value, distance_bias, visibility.intervals, scale, dropout_p)
    return context.view(batch, num_heads, num_queries, width)


def _takes_tiles(query: Tensor) -> bool:
    """Whether the whole of attention is one native op for these queries; see `csrc/attention/attention_tiles.cpp`."""
    return query.device.type == "cpu" and query.dtype != torch.float64


def _plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    distance_bias: Tensor | None,
    intervals: Tensor,
    scale: float,
    dropout_p: float,
) -> Tensor:
    """query [b g, r, s_q, d], key and value [b g, s_k, d] -> [b g, r, s_q, d] without native ops."""
    num_keys, batch = key.shape[1], intervals.shape[0]
    scores = torch.bmm(query.flatten(1, 2), key.transpose(1, 2))
    probs = interval_softmax(scores.view(batch, -1, query.shape[2], num_keys), intervals, distance_bias, scale)
    probs = torch.dropout(probs, dropout_p, train=dropout_p > 0)
    return torch.bmm(probs.view(len(query), -1, num_keys), value).view(query.shape)


class _BlockedAttention(torch.autograd.Function):
    """query [b g, r, s_q, d], key and value [b g, s_k, d] -> [b g, r, s_q, d], block by block.

    Saves the probabilities [b, h, block, keys of the block] and, with dropout, which of them were kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        distance_bias: Tensor | None,
        blocks: tuple[QueryBlock, ...],
        scale: float,
        dropout_p: float,
    ) -> Tensor:
        context = query.new_zeros(query.shape)
        saved: list[Tensor | None] = []
        for block in blocks:
            keys, queries = slice(block.first_key, block.end_key), slice(block.first_query, block.end_query)
            scores = torch.bmm(query[:, :, queries].flatten(1, 2), key[:, keys].transpose(1, 2))
            probs = scores.view(len(block.intervals), -1, queries.stop - queries.start, keys.stop - keys.start)
            bias = None if distance_bias is None else distance_bias[:, block.distances(query.shape[2])]
            torch.ops.triarch.interval_softmax_(probs, block.intervals, bias, scale)
            dropped, kept = torch.native_dropout(scores, dropout_p, True) if dropout_p else (scores, None)
            _multiply_into(context[:, :, queries], dropped, value[:, keys])
            saved += [probs, kept]
        ctx.save_for_backward(query, key, value, *saved)
        ctx.blocks, ctx.scale, ctx.keep_rate = blocks, scale, 1.0 - dropout_p
        ctx.bias_shape = None if distance_bias is None else distance_bias.shape
        return context

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_context: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *saved = ctx.saved_tensors
        has_bias = ctx.needs_input_grad[3]
        grad_query = torch.zeros_like(query, memory_format=torch.contiguous_format)
        grad_key, grad_value = _sum_of_blocks(key, ctx.blocks), _sum_of_blocks(value, ctx.blocks)
        grad_bias = query.new_zeros(ctx.bias_shape, dtype=torch.float32) if has_bias else None
        for block, probs, kept in zip(ctx.blocks, saved[0::2], saved[1::2], strict=True):
            keys, queries = slice(block.first_key, block.end_key), slice(block.first_query, block.end_query)
            own_query, own_grad = (t[:, :, queries].flatten(1, 2) for t in (query, grad_context))
            dropped = probs.view(len(query), -1, keys.stop - keys.start)
            grad_probs = torch.bmm(own_grad, value[:, keys].transpose(1, 2))
            if kept is not None:
                dropped = torch.ops.aten.native_dropout_backward(dropped, kept, 1.0 / ctx.keep_rate)
                grad_probs = torch.ops.aten.native_dropout_backward(grad_probs, kept, 1.0 / ctx.keep_rate)
            _add_product(grad_value[:, keys], dropped.transpose(1, 2), own_grad)
            own_grad_bias = torch.ops.triarch.interval_softmax_backward_(
                grad_probs.view(probs.shape), probs, block.intervals, has_bias, ctx.scale
            )
            if grad_bias is not None:
                grad_bias[:, block.distances(query.shape[2])] += own_grad_bias
            _multiply_into(grad_query[:, :, queries], grad_probs, key[:, keys])
            _add_product(grad_key[:, keys], grad_probs.transpose(1, 2), own_query)
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), grad_bias, None, None, None


def _multiply_into(target: Tensor, left: Tensor, right: Tensor) -> None:
    """target [n, r, s, d] = left [n, r s, k] @ right [n, k, d]; without a copy where a group has one head."""
    if target.shape[1] == 1:
        torch.bmm(left, right, out=target.squeeze(1))
    else:
        target.copy_(torch.bmm(left, right).view(target.shape))


def _sum_of_blocks(like: Tensor, blocks: tuple[QueryBlock, ...]) -> Tensor:
    """Zeros to which each block adds: float32 for 16-bit types, which would round after each of several additions."""
    needs_more_bits = len(blocks) > 1 and like.element_size() < 4
    return like.new_zeros(like.shape, dtype=torch.float32 if needs_more_bits else like.dtype)


def _add_product(target: Tensor, left: Tensor, right: Tensor) -> None:
    """target += left @ right; the target may be float32 for 16-bit factors."""
    if target.dtype == left.dtype:
        target.baddbmm_(left, right)
    else:
        target += torch.bmm(left, right)
