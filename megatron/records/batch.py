"""What model and loss ever see: rows as torch tensors with a leading batch dimension, on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Visibility:
    """Which keys each query of each sample sees: `records.visibility` for a whole batch.

    intervals: int32 [b, s_q, 2], half-open. num_keys: s_k. is_causal: every sample is plainly causal (query q sees
    keys 0..q), so a backend may take its own causal kernel without looking at the tensor. branches: queries whose keys
    are no interval of the row; what `intervals` says of them counts for nothing.
    """

    intervals: Tensor
    num_keys: int
    is_causal: bool = False
    branches: tuple[Branches, ...] = ()

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
    def is_full(self) -> bool:
        """Every query sees every key. Reads from the device: for the CPU."""
        first, last = self.intervals[..., 0], self.intervals[..., 1]
        return bool(torch.all((first == 0) & (last == self.num_keys)))

    @cached_property
    def seen(self) -> Tensor:
        """bool [b, 1, s_q, 1], False for queries that see nothing."""
        return (self.intervals[..., 1] > self.intervals[..., 0])[:, None, :, None]


@dataclass(frozen=True, eq=False)
class Branches:
    """Sequences that go on behind trunks which several of them see and none repeats, as the answers to a question.

    One branch is a row here. keys: int64 [n, k], where those of its trunk and then its own stand, as position x rows of
    the batch + row; padded in front. visibility: which of them each query sees; the queries are the last of the keys.
    origins: int64 [2, m], the branches and the columns of all queries that are no padding. targets: int64 [2, m], their
    positions and rows in the batch.
    """

    keys: Tensor
    visibility: Visibility
    origins: Tensor
    targets: Tensor


@dataclass(frozen=True, eq=False)
class EncoderBatch:
    """The encoder's side of a batch. tokens, position_ids: int64 [b, s_enc].

    visibility: the encoder keys of each encoder position. cross_visibility: the encoder keys of each decoder position.
    """

    tokens: Tensor
    position_ids: Tensor
    visibility: Visibility
    cross_visibility: Visibility


@dataclass(frozen=True, eq=False)
class Batch:
    """tokens, labels, position_ids: int64 [b, s]. loss_mask: float32 [b, s]. visibility: the keys of each position.

    encoder: the second stream of an encoder-decoder, whose decoder is the first. head_positions: int64 [2, n], the
    positions and the rows (of the batch) where logits are wanted, [n, 1, vocabulary] of them; None for all positions.
    """

    tokens: Tensor
    labels: Tensor
    loss_mask: Tensor
    position_ids: Tensor
    visibility: Visibility
    encoder: EncoderBatch | None = None
    head_positions: Tensor | None = None

    @property
    def stream_length(self) -> int:
        """Positions of a row that travel through the pipeline: all streams, one behind the other."""
        return self.tokens.shape[1] + (self.encoder.tokens.shape[1] if self.encoder else 0)

    def map(self, put: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor sent through `put`; what was derived from the old tensors is forgotten."""
        return _mapped(self, put)


def _mapped(record: Any, put: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(record, Tensor):
        return put(record)
    if isinstance(record, tuple):
        return tuple(_mapped(value, put) for value in record)
    if not is_dataclass(record):
        return record
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return replace(record, **{name: _mapped(value, put) for name, value in values.items()})  # type: ignore[type-var]
