"""What model and loss ever see: rows as torch tensors with a leading batch dimension, on the device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Visibility:
    """Which keys each query of each sample sees: `records.visibility` for a whole batch.

    intervals: int32 [b, s_q, 2], half-open. num_keys: s_k. is_causal: every sample is plainly causal (query q sees
    keys 0..q), so a backend may take its own causal kernel without looking at the tensor.
    """

    intervals: Tensor
    num_keys: int
    is_causal: bool = False

    @cached_property
    def dense(self) -> Tensor:
        """bool [b, 1, s_q, s_k], True where the query sees the key. Built once a step, for kernels that need it."""
        keys = torch.arange(self.num_keys, device=self.intervals.device, dtype=torch.int32)
        start, end = self.intervals.unsqueeze(-2).unbind(-1)
        return ((keys >= start) & (keys < end)).unsqueeze(1)

    @cached_property
    def dense_without_empty_rows(self) -> Tensor:
        """`dense`, but a query that sees nothing sees all: library kernels make NaN of an empty row."""
        return self.dense | ~self.seen

    @cached_property
    def seen(self) -> Tensor:
        """bool [b, 1, s_q, 1], False for queries that see nothing."""
        return (self.intervals[..., 1] > self.intervals[..., 0])[:, None, :, None]


@dataclass(frozen=True, eq=False)
class Batch:
    """tokens, labels, position_ids: int64 [b, s]. loss_mask: float32 [b, s]. visibility: the keys of each position."""

    tokens: Tensor
    labels: Tensor
    loss_mask: Tensor
    position_ids: Tensor
    visibility: Visibility
