"""Rows become a batch: numpy to torch, with a leading batch dimension."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megatron.records import visibility
from megatron.records.batch import Batch, EncoderBatch, Visibility
from megatron.records.row import EncoderRow, Row

_causal = lru_cache(maxsize=4)(visibility.causal)


def collate(rows: Sequence[Row]) -> Batch:
    """A batch [b, s] in host memory from b rows of the same lengths."""
    encoders = [row.encoder for row in rows if row.encoder is not None]
    return Batch(
        tokens=_stacked(rows, "tokens", np.int64),
        labels=_stacked(rows, "labels", np.int64),
        loss_mask=_stacked(rows, "loss_mask", np.float32),
        position_ids=_stacked(rows, "position_ids", np.int64),
        visibility=_visibility(rows, "intervals", len(rows[0].tokens)),
        encoder=_encoder_batch(encoders) if encoders else None,
    )


def _encoder_batch(rows: Sequence[EncoderRow]) -> EncoderBatch:
    num_keys = len(rows[0].tokens)
    return EncoderBatch(
        tokens=_stacked(rows, "tokens", np.int64),
        position_ids=_stacked(rows, "position_ids", np.int64),
        visibility=_visibility(rows, "intervals", num_keys),
        cross_visibility=_visibility(rows, "cross_intervals", num_keys),
    )


def _visibility(rows: Sequence[Any], name: str, num_keys: int) -> Visibility:
    intervals = _stacked(rows, name, np.int32)
    causal = _causal(num_keys)
    is_causal = intervals.shape[1:] == causal.shape and bool((intervals.numpy() == causal).all())
    return Visibility(intervals, num_keys, is_causal)


def _stacked(rows: Sequence[Any], name: str, dtype: type[np.generic]) -> Tensor:
    target = np.empty((len(rows), *getattr(rows[0], name).shape), dtype)
    for number, row in enumerate(rows):
        target[number] = getattr(row, name)
    return torch.from_numpy(target)
