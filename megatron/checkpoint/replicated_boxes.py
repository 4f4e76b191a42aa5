"""The state of an optimizer that steps whole parameters on each data-parallel rank, as parts of global tensors.

A state is as large as its parameter, or holds one number for each of its rows [rows], or for each of its columns in
every block of rows [blocks, columns].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from torch import Tensor, nn

from megatron.checkpoint.optimizer_boxes import described_parameters, parts_of_state


class ReplicatedState(Protocol):
    """An optimizer whose states are found by parameter; data-parallel ranks hold the same ones.

    optimizer: with `step` in its parameter groups. masters: the master weight of each parameter of the model.
    """

    optimizer: torch.optim.Optimizer
    grad_scaler: Any
    masters: Mapping[nn.Parameter, Tensor]

    def states_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Master weight, as `param`, and moments by name, float32."""

    def copy_masters_to_weights(self) -> None:
        """Give the model the rounded master weights."""


def replicated_boxes(optimizer: ReplicatedState, model: dict[str, Any]) -> list[ShardedTensor]:
    """All states on this rank; the data are views of the optimizer's own memory.

    model: the sharded state dict of the chunks, not yet filled.
    """
    described = described_parameters(model)
    boxes = []
    for parameter in optimizer.masters:
        base = described[id(parameter)]
        for name, state in optimizer.states_of(parameter).items():
            parts = list(parts_of_state(base, name, base.replica_id))
            if state.shape == parameter.shape:
                boxes += [_whole(part, start, state) for part, start in parts]
            elif state.dim() == 1:
                boxes += [_rows(part, start // parameter.shape[1], state) for part, start in parts]
            else:
                boxes.append(_columns(parts[0][0], state))
    return boxes


def _whole(part: ShardedTensor, start: int, state: Tensor) -> ShardedTensor:
    rows = state.detach().view(-1)[start : start + part.data.numel()]
    return replace(part, data=rows.view(part.local_shape))


def _rows(part: ShardedTensor, first: int, state: Tensor) -> ShardedTensor:
    data = state[first : first + part.local_shape[0]]
    return replace(
        part,
        data=data,
        local_shape=tuple(data.shape),
        global_shape=part.global_shape[:1],
        global_offset=part.global_offset[:1],
        axis_fragmentations=None,
        replica_id=_replica(part, is_cut=part.local_shape[0] < part.global_shape[0]),
    )


def _columns(part: ShardedTensor, state: Tensor) -> ShardedTensor:
    return replace(
        part,
        data=state,
        local_shape=tuple(state.shape),
        global_shape=(len(state), part.global_shape[1]),
        global_offset=(0, part.global_offset[1]),
        axis_fragmentations=None,
        replica_id=_replica(part, is_cut=part.local_shape[1] < part.global_shape[1]),
    )


def _replica(part: ShardedTensor, *, is_cut: bool) -> tuple[int, ...]:
    """A vector along the dimension that is not cut is the same on all tensor-parallel ranks: the first one's counts."""
    first, *_, last = part.replica_id
    return (first, 0 if is_cut else parallel_state.get_tensor_model_parallel_rank(), last)
