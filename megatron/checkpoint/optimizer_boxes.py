"""Master weights and moments as boxes of the global tensors: each data-parallel rank writes and reads its own slice.

megatron-core's distributed optimizer gives a rank a range of the flattened parameter. In row-major order such a range
is a part of a row, whole rows, and a part of a row again; each is a box that any other layout can find by its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.dist_checkpointing.state_dict_utils import save_preprocess
from megatron.core.dist_checkpointing.utils import extract_sharded_tensors_and_factories
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor

_STATES = ("param", "exp_avg", "exp_avg_sq")


def optimizer_boxes(optimizer: DistributedOptimizer, model: dict[str, Any]) -> list[ShardedTensor]:
    """What this rank owns of master weights and moments, float32; the data are views of the optimizer's own memory.

    model: the sharded state dict of the chunks, not yet filled; it says where each parameter stands in the whole.
    """
    described = described_parameters(model)
    boxes = []
    for ranges in optimizer.gbuf_ranges:
        for bucket in (bucket for buckets in ranges.values() for bucket in buckets):
            for parameter, owned in bucket["param_map"].items():
                states = optimizer._get_main_param_and_optimizer_states(parameter)
                base = described[id(parameter)]
                # Every data-parallel rank owns its slice, so none is a replica of another's.
                owner = (*base.replica_id[:-1], 0)
                for name in _STATES:
                    for part, start in parts_of_state(base, name, owner):
                        boxes += _owned_boxes(part, start, states[name].detach(), owned["param"].start)
    return boxes


def boxes_of_range(shape: tuple[int, ...], start: int, end: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(offset, shape) of the fewest boxes that hold elements start to end of a row-major tensor, in their order."""
    if start >= end:
        return []
    if not shape:
        return [((), ())]
    row = math.prod(shape[1:])

    def inside(number: int, first: int, last: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        return [((number, *offset), (1, *part)) for offset, part in boxes_of_range(shape[1:], first, last)]

    first, last = -(-start // row), end // row
    if first > last:
        return inside(last, start - last * row, end - last * row)
    boxes = inside(first - 1, start - (first - 1) * row, row)
    if last > first:
        boxes.append(((first, *(0 for _ in shape[1:])), (last - first, *shape[1:])))
    return boxes + inside(last, 0, end - last * row)


def described_parameters(model: dict[str, Any]) -> dict[int, ShardedTensor | ShardedTensorFactory]:
    """By id() of the parameter, where it stands in the whole model; model: a sharded state dict, not yet filled."""
    return {id(base.data): base for base in nested_values(extract_sharded_tensors_and_factories(model)[0])}


def parts_of_state(
    base: ShardedTensor | ShardedTensorFactory, name: str, replica_id: tuple[int, ...]
) -> Iterator[tuple[ShardedTensor, int]]:
    """One state of a parameter without its numbers, gated projections taken apart: (part, where it starts in it)."""
    shape = torch.empty(base.data.shape, dtype=torch.float32, device="meta")
    own = {"key": f"optimizer.state.{name}.{base.key}", "data": shape, "replica_id": replica_id}
    if isinstance(base, ShardedTensor):
        yield replace(base, dtype=shape.dtype, **own), 0
        return
    parts, _ = save_preprocess({"parts": replace(base, **own)}, validate_access_integrity=False)
    for part in nested_values(parts):
        assert part.data.is_contiguous(), f"{part.key} is cut across its rows"
        yield part, part.data.storage_offset()


def _owned_boxes(part: ShardedTensor, part_start: int, data: Tensor, data_start: int) -> list[ShardedTensor]:
    """The boxes of `part` within a flat slice; both starts count elements of the whole local parameter."""
    numel = math.prod(part.local_shape)
    first = max(data_start, part_start)
    last = min(data_start + data.numel(), part_start + numel)
    boxes = boxes_of_range(tuple(part.local_shape), first - part_start, last - part_start)
    cuts = accumulate((math.prod(shape) for _, shape in boxes), initial=first - data_start)
    return [
        replace(
            part,
            data=data[start:end].view(shape),
            local_shape=shape,
            global_offset=tuple(a + b for a, b in zip(part.global_offset, offset, strict=True)),
            axis_fragmentations=None,
        )
        for (offset, shape), (start, end) in zip(boxes, pairwise(cuts), strict=True)
    ]
