"""Attention of sequences that share what stands before them, each over that and itself."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import embedding

from megatron.attention.registry import AttentionBackend
from megatron.records.batch import Visibility


def attend_with_branches(
    attend: AttentionBackend,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visibility: Visibility,
    *,
    scale: float,
    distance_bias: Tensor | None,
) -> Tensor:
    """query [b, h, s, d], key and value [b, g, s, d] -> [b, h, s, d], under a visibility with branches.

    A branch attends as a sample of its own, with a copy of its trunk's keys and values. Copying them costs little
    beside what made them, and in that order, padded in front, the distance of two columns is that of their positions.
    Without dropout. distance_bias: as `AttentionBackend` takes it, of the whole row.
    """
    context = attend(query, key, value, visibility, scale=scale, distance_bias=distance_bias)
    queries, keys, values = _positions(query), _positions(key), _positions(value)
    for branches in visibility.branches:
        num_queries, num_keys = branches.visibility.intervals.shape[1], branches.visibility.num_keys
        bias = None
        if distance_bias is not None:
            bias = distance_bias[:, visibility.num_keys - num_keys : visibility.num_keys + num_queries - 1]
        own = attend(
            _taken(queries, branches.keys[:, num_keys - num_queries :], query.shape[-1]),
            _taken(keys, branches.keys, key.shape[-1]),
            _taken(values, branches.keys, value.shape[-1]),
            branches.visibility,
            scale=scale,
            distance_bias=bias,
        )
        branch, column = branches.origins
        position, row = branches.targets
        context[row, :, position] = own[branch, :, column]
    return context


def _positions(tensor: Tensor) -> Tensor:
    """[b, h, s, d] -> [s b, h d]: whole positions are copied several times as fast as heads of them."""
    batch, num_heads, length, width = tensor.shape
    return tensor.permute(2, 0, 1, 3).reshape(length * batch, num_heads * width)


def _taken(positions: Tensor, places: Tensor, width: int) -> Tensor:
    """[s b, h d] -> [n, h, k, d], those at places int64 [n, k]."""
    return embedding(places, positions).unflatten(-1, (-1, width)).transpose(1, 2)
