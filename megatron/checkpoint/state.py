"""Model and optimizer as megatron-core's sharded state dicts: of each local tensor, where it stands in the whole."""

from __future__ import annotations

from typing import Any, cast

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.dict_utils import dict_list_map_inplace, nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factory_merges
from megatron.core.dist_checkpointing.state_dict_utils import load_preprocess, save_preprocess
from megatron.core.dist_checkpointing.utils import extract_sharded_base
from megatron.core.transformer.module import MegatronModule
from torch import nn

from megatron.basics.errors import UserError
from megatron.checkpoint.optimizer_state import SavedOptimizer


def model_state(chunks: list[nn.Module]) -> dict[str, Any]:
    """{"chunk0": sharded state dict, ...}; layers go by their number in the whole stack."""
    metadata = {
        "non_homogeneous_layers": True,
        "dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True),
    }
    return {
        f"chunk{number}": cast(MegatronModule, chunk).sharded_state_dict(metadata=metadata)
        for number, chunk in enumerate(chunks)
    }


def tensors_to_save(state: dict[str, Any]) -> list[ShardedTensor]:
    """The sharded tensors of a state, with gated projections taken apart."""
    sharded, _ = save_preprocess(state, validate_access_integrity=False)
    return [value for value in nested_values(sharded) if isinstance(value, ShardedTensor)]


def fill_state(state: dict[str, Any], read: Any) -> dict[str, Any]:
    """The same nested dict with read(sharded_tensor) for each sharded tensor, and gated projections put together."""
    sharded, _, factories = load_preprocess(state)
    sharded, _ = extract_sharded_base(sharded)
    filled = dict_list_map_inplace(lambda value: read(value) if isinstance(value, ShardedTensor) else value, sharded)
    return apply_factory_merges(filled, factories)


def load_chunk(chunk: nn.Module, state: dict[str, Any]) -> None:
    """Put loaded tensors into a model chunk; every parameter must be among them."""
    missing = [name for name in chunk.load_state_dict(state, strict=False).missing_keys if "_extra_state" not in name]
    if missing:
        raise UserError(f"the checkpoint lacks {missing[0]} and {len(missing) - 1} more tensors of this model.")


def scalar_optimizer_state(optimizer: SavedOptimizer) -> dict[str, Any]:
    """{"step": applied steps, "grad_scaler": loss scale and its counters, or None}; fit for JSON."""
    steps = {group.get("step", 0) for group in optimizer.optimizer.param_groups}
    assert len(steps) == 1, f"parameter groups disagree about their step: {steps}"
    scaler = optimizer.grad_scaler
    state = {
        name: value.item() if isinstance(value, torch.Tensor) else value
        for name, value in (scaler.state_dict() if scaler else {}).items()
    }
    return {"step": int(steps.pop()), "grad_scaler": state or None}


def load_scalar_optimizer_state(optimizer: SavedOptimizer, state: dict[str, Any]) -> None:
    """The inverse of `scalar_optimizer_state`; a loss scale is kept only where this run scales its loss.

    Its counters are brought within this run's --loss-scale-window and --hysteresis, which may have changed: a counter
    that begins beyond its window never meets it, and the scale would never grow again.
    """
    for group in optimizer.optimizer.param_groups:
        group["step"] = state["step"]
    scaler = optimizer.grad_scaler
    if scaler and state["grad_scaler"]:
        saved = state["grad_scaler"]
        scale = torch.full_like(scaler.scale, saved["scale"])
        scaler.load_state_dict(
            {
                "scale": torch.maximum(scale, scaler.min_scale),
                "growth_tracker": min(saved["growth_tracker"], scaler.growth_interval - 1),
                "hysteresis_tracker": min(saved["hysteresis_tracker"], scaler.hysteresis),
            }
        )
