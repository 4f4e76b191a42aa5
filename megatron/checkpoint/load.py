"""Loading a run from the newest sound checkpoint, on any layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist
from torch import nn

from megatron.basics.errors import UserError
from megatron.checkpoint import folders
from megatron.checkpoint.contents import Contents
from megatron.checkpoint.manifest import CorruptCheckpoint, Manifest, read_manifest
from megatron.checkpoint.optimizer_state import SavedOptimizer, optimizer_tensors, share_weights
from megatron.checkpoint.shards import ShardReader
from megatron.checkpoint.state import fill_state, load_chunk, load_scalar_optimizer_state, model_state
from megatron.layout.grid import Grid


@dataclass(frozen=True)
class Loaded:
    """What was loaded, and from where. rejected: one sentence for each newer checkpoint that was not sound."""

    folder: Path
    contents: Contents
    rejected: tuple[str, ...]


def load_newest(
    run_folder: Path,
    grid: Grid,
    chunks: list[nn.Module],
    optimizer: SavedOptimizer | None,
    *,
    iteration: int | None = None,
    say: Callable[[str], None] = print,
) -> Loaded:
    """Load model chunks (without DDP) and, where given, the optimizer from a run folder. A collective.

    The newest checkpoint whose files are whole and whose checksums hold is taken; damaged ones are named and passed
    over. With `iteration` that one is taken and no other. Raises UserError when none can be loaded.
    """
    candidates = _candidates(run_folder, iteration, grid)
    if not candidates:
        which = f"no checkpoint of iteration {iteration}" if iteration is not None else "no complete checkpoint"
        raise UserError(f"{run_folder} holds {which}; point --load at a run folder with iter_NNNNNNN folders.")
    rejected: list[str] = []
    for _, folder in reversed(candidates):
        damage, mismatch = _agree(_try_to_load(folder, chunks, optimizer), grid)
        if mismatch:
            raise UserError(mismatch)
        if damage is None:
            if optimizer is not None:
                share_weights(optimizer)
            return Loaded(folder, read_manifest(folder).contents, tuple(rejected))
        rejected.append(damage)
        if grid.is_main and iteration is None:
            say(f"warning: {damage}; trying the checkpoint before it.")
    if iteration is not None:
        raise UserError(f"{rejected[-1]}; name another checkpoint with --load-iteration.")
    raise UserError(f"{run_folder} holds no checkpoint that can be loaded: {rejected[-1]}.")


def _candidates(run_folder: Path, iteration: int | None, grid: Grid) -> list[tuple[int, Path]]:
    """Rank 0's list, on every rank: a shared file system may show another node an older state of the folder."""
    found = [folders.checkpoints_of(run_folder) if grid.is_main else []]
    dist.broadcast_object_list(found, src=0)
    return [entry for entry in found[0] if iteration in (None, entry[0])]


def _try_to_load(folder: Path, chunks: list[nn.Module], optimizer: SavedOptimizer | None) -> Exception | None:
    """None when all went well, else what this rank met."""
    try:
        load_tensors(folder, read_manifest(folder), chunks, optimizer)
    except (CorruptCheckpoint, UserError) as fault:
        return fault
    return None


def load_tensors(folder: Path, manifest: Manifest, chunks: list[nn.Module], optimizer: SavedOptimizer | None) -> None:
    """Fill chunks and optimizer from one checkpoint. What fails may leave them half filled: fill them from another.

    Takes the weights of this rank and one piece of the checkpoint in host memory; every piece that is read is checked.
    """
    reader = ShardReader(folder, manifest)
    model = model_state(chunks)
    # The optimizer's boxes look parameters up in the model's description, so they are made before that is filled.
    boxes = optimizer_tensors(optimizer, model) if optimizer is not None else []
    state = fill_state(model, reader.fill)
    for number, chunk in enumerate(chunks):
        load_chunk(chunk, state[f"chunk{number}"])
    del state
    # After the weights: float32 weights are their own master weights, and these are never rounded.
    for box in boxes:
        box.data.copy_(reader.fill(box))
    if optimizer is not None:
        load_scalar_optimizer_state(optimizer, manifest.contents.optimizer)


def _agree(fault: Exception | None, grid: Grid) -> tuple[str | None, str | None]:
    """(damage, mismatch) of any rank: a checkpoint counts as loaded only when it is for all."""
    mine = (str(fault), isinstance(fault, UserError)) if fault is not None else None
    faults: list[tuple[str, bool] | None] = [None] * grid.world_size
    dist.all_gather_object(faults, mine)
    damage = next((text for text, is_mismatch in filter(None, faults) if not is_mismatch), None)
    mismatch = next((text for text, is_mismatch in filter(None, faults) if is_mismatch), None)
    return damage, mismatch
