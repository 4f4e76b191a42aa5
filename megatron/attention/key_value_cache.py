"""Keys and values that stay between passes, so that a pass computes its own positions alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class _Stored:
    """keys, values: [b, groups, room, d], of which the first `length` positions are there."""

    keys: Tensor
    values: Tensor
    length: int

    def append(self, key: Tensor, value: Tensor) -> None:
        """Write new positions behind the others, in storage of twice the size where they do not fit."""
        end = self.length + key.shape[2]
        if end > self.keys.shape[2]:
            self.keys, self.values = (self._grown(tensor, 2 * end) for tensor in (self.keys, self.values))
        self.keys[:, :, self.length : end] = key
        self.values[:, :, self.length : end] = value
        self.length = end

    def _grown(self, tensor: Tensor, room: int) -> Tensor:
        grown = tensor.new_empty((*tensor.shape[:2], room, tensor.shape[3]))
        grown[:, :, : self.length] = tensor[:, :, : self.length]
        return grown


class KeyValueCache:
    """What the attention of every layer on this rank has read in earlier passes over the same rows.

    A pass brings the next positions of all rows, so rows whose queries stand at different positions are padded in
    front. A layer whose keys never change, as those of cross attention, brings them in the first pass and none later.
    """

    def __init__(self) -> None:
        self._layers: dict[nn.Module, _Stored] = {}
        self._biases: dict[nn.Module, Tensor] = {}

    def extend(self, layer: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of `layer` [b, groups, s_k, d], those of this pass [b, groups, s, d] at the end."""
        stored = self._layers.get(layer)
        if stored is None:
            key, value = key.contiguous(), value.contiguous()  # else storage of the queries would be kept with them
            self._layers[layer] = _Stored(key, value, key.shape[2])
            return key, value
        if key.shape[2]:
            stored.append(key, value)
        return stored.keys[:, :, : stored.length], stored.values[:, :, : stored.length]

    def bias_of_one_query(self, owner: nn.Module, compute: Callable[[int, int], Tensor], num_keys: int) -> Tensor:
        """compute(1, num_keys), the bias of a query on each of its keys [heads, s_k], from one computed earlier."""
        stored = self._biases.get(owner)
        if stored is None or stored.shape[1] < num_keys:
            stored = self._biases[owner] = compute(1, 2 * num_keys)
        return stored[:, -num_keys:]


def bias_for(
    cache: KeyValueCache | None,
    owner: nn.Module,
    compute: Callable[[int, int], Tensor],
    num_queries: int,
    num_keys: int,
) -> Tensor:
    """compute(num_queries, num_keys), a bias by distance [heads, s_q + s_k - 1] of `owner`, where it may from a cache.

    A text that is written on asks for the same distances token by token, each time for one more.
    """
    if cache is None or num_queries > 1:
        return compute(num_queries, num_keys)
    return cache.bias_of_one_query(owner, compute, num_keys)
