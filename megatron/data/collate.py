"""Rows become a batch: numpy to torch, with a leading batch dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from megatron.records import visibility
from megatron.records.batch import Batch, Visibility
from megatron.records.row import Row

_causal = lru_cache(maxsize=4)(visibility.causal)


def collate(rows: Sequence[Row]) -> Batch:
    """A batch [b, s] in host memory from b rows of the same length s."""

    def stacked(name: str, dtype: type[np.generic]) -> Tensor:
        target = np.empty((len(rows), *getattr(rows[0], name).shape), dtype)
        for number, row in enumerate(rows):
            target[number] = getattr(row, name)
        return torch.from_numpy(target)

    intervals = stacked("intervals", np.int32)
    num_keys = len(rows[0].tokens)
    is_causal = bool((intervals.numpy() == _causal(num_keys)).all())
    return Batch(
        tokens=stacked("tokens", np.int64),
        labels=stacked("labels", np.int64),
        loss_mask=stacked("loss_mask", np.float32),
        position_ids=stacked("position_ids", np.int64),
        visibility=Visibility(intervals, num_keys, is_causal),
    )


def move(batch: Batch, put: Callable[[Tensor], Tensor]) -> Batch:
    """The same batch with every tensor sent through `put`, e.g. Device.put."""
    return Batch(
        tokens=put(batch.tokens),
        labels=put(batch.labels),
        loss_mask=put(batch.loss_mask),
        position_ids=put(batch.position_ids),
        visibility=replace(batch.visibility, intervals=put(batch.visibility.intervals)),
    )
