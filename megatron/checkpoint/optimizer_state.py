"""The two ways in which optimizers hold their state, to those who save and load it."""

from __future__ import annotations

from typing import Any, TypeAlias

from megatron.core.dist_checkpointing.mapping import ShardedTensor
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from megatron.checkpoint.optimizer_boxes import optimizer_boxes
from megatron.checkpoint.replicated_boxes import ReplicatedState, replicated_boxes

SavedOptimizer: TypeAlias = DistributedOptimizer | ReplicatedState


def optimizer_tensors(optimizer: SavedOptimizer, model: dict[str, Any]) -> list[ShardedTensor]:
    """Master weights and moments on this rank, float32; the data are views of the optimizer's own memory.

    model: the sharded state dict of the chunks, not yet filled; it says where each parameter stands in the whole.
    """
    if isinstance(optimizer, DistributedOptimizer):
        return optimizer_boxes(optimizer, model)
    return replicated_boxes(optimizer, model)


def share_weights(optimizer: SavedOptimizer) -> None:
    """Give every rank the weights that follow from their owners' master weights. A collective.

    Those that were read may have been rounded on the way: stored in a lower precision, or in another of 16 bits.
    """
    if not isinstance(optimizer, DistributedOptimizer):
        optimizer.copy_masters_to_weights()
        return
    optimizer._copy_main_params_to_model_params()
    for chunk in optimizer.model_chunks:
        chunk.start_param_sync(force_sync=True)
