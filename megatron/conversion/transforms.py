"""Maps between one tensor of ours and one or more of theirs, each with its exact inverse.

All of them choose, order and join numbers; none computes, so that a round trip is exact in every precision. They work
on meta tensors too, from which the shapes of a folder follow without a second description.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Transform(Protocol):
    """One tensor of ours as several of theirs, and back."""

    def to_theirs(self, ours: Tensor) -> tuple[Tensor, ...]:
        """The tensors of a folder, in the order of the rule's names."""

    def to_ours(self, theirs: tuple[Tensor, ...]) -> Tensor:
        """The inverse."""


@dataclass(frozen=True)
class Same:
    """The tensor as it is."""

    def to_theirs(self, ours: Tensor) -> tuple[Tensor, ...]:
        """See Transform."""
        return (ours,)

    def to_ours(self, theirs: tuple[Tensor, ...]) -> Tensor:
        """See Transform."""
        return theirs[0]


@dataclass(frozen=True)
class Transposed:
    """[n, m] is [m, n] there: GPT-2's Conv1D, T5's tables of distances."""

    def to_theirs(self, ours: Tensor) -> tuple[Tensor, ...]:
        """See Transform."""
        return (ours.t().contiguous(),)

    def to_ours(self, theirs: tuple[Tensor, ...]) -> Tensor:
        """See Transform."""
        return theirs[0].t().contiguous()


@dataclass(frozen=True)
class Words:
    """A table of words, whose rows behind the vocabulary are ours alone: they are cut off, and come back as zeros."""

    vocabulary_size: int
    padded_size: int

    def to_theirs(self, ours: Tensor) -> tuple[Tensor, ...]:
        """See Transform."""
        return (ours[: self.vocabulary_size],)

    def to_ours(self, theirs: tuple[Tensor, ...]) -> Tensor:
        """See Transform."""
        (words,) = theirs
        padding = words.new_zeros(self.padded_size - len(words), *words.shape[1:])
        return torch.cat([words, padding])


@dataclass(frozen=True)
class Stacked:
    """Tensors one behind the other along the rows, all of the same size: gate and up projection."""

    parts: int

    def to_theirs(self, ours: Tensor) -> tuple[Tensor, ...]:
        """See Transform."""
        return ours.chunk(self.parts)

    def to_ours(self, theirs: tuple[Tensor, ...]) -> Tensor:
        """See Transform."""
        return torch.cat(theirs)


@dataclass(frozen=True)
class Grouped:
    """Projections woven by group, as megatron-core stacks them: in each group `rows[0]` heads of the first, and so on.

    linear_qkv: rows (heads / groups, 1, 1) for query, key, value. linear_kv: (1, 1). head_size: rows of a head. Weights
    [.., h] and biases alike. transposed: each of theirs is [h, ..], and joined: they stand in one tensor side by side
    (GPT-2's c_attn).
    """

    groups: int
    rows: tuple[int, ...]
    head_size: int
    transposed: bool = False
    joined: bool = False

    def to_theirs(self, ours: Tensor) -> tuple[Tensor, ...]:
        """See Transform."""
        by_group = ours.view(self.groups, sum(self.rows), self.head_size, *ours.shape[1:])
        parts = tuple(part.flatten(0, 2) for part in by_group.split(self.rows, dim=1))
        if self.joined:
            parts = (torch.cat(parts),)
        return tuple(self._turned(part) for part in parts)

    def to_ours(self, theirs: tuple[Tensor, ...]) -> Tensor:
        """See Transform."""
        parts = tuple(self._turned(part) for part in theirs)
        if self.joined:
            heads = [count * self.groups * self.head_size for count in self.rows]
            parts = parts[0].split(heads)
        by_group = [
            part.reshape(self.groups, count, self.head_size, *part.shape[1:])
            for part, count in zip(parts, self.rows, strict=True)
        ]
        return torch.cat(by_group, dim=1).flatten(0, 2)

    def _turned(self, part: Tensor) -> Tensor:
        return part.t().contiguous() if self.transposed and part.dim() == 2 else part.contiguous()
