"""The vocabulary head where the loss is, for rows of which most positions have none."""

from __future__ import annotations

from dataclasses import replace

from megatron.records.batch import Batch

LARGEST_SHARE = 0.75


def with_head_at_targets(batch: Batch) -> Batch:
    """The batch with `head_positions` where its loss mask is set; as it is where that spares less than a quarter.

    A batch without any target keeps all positions, so that the head has something to read.
    """
    targets = batch.loss_mask.t().nonzero().t().contiguous()
    if not 0 < targets.shape[1] <= LARGEST_SHARE * batch.loss_mask.numel():
        return batch
    return replace(batch, head_positions=targets)
