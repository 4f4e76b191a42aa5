"""Fills a model and its optimizer from a checkpoint of another architecture, on any layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from megatron.adaptation.plan import Plan
from megatron.adaptation.reader import MASTER_WEIGHTS, AdaptedReader, Vocabularies
from megatron.basics.errors import UserError
from megatron.checkpoint.manifest import CorruptCheckpoint, read_manifest
from megatron.checkpoint.optimizer_state import SavedOptimizer, optimizer_tensors, share_weights
from megatron.checkpoint.shards import ShardReader
from megatron.checkpoint.state import load_scalar_optimizer_state, model_state
from megatron.layout.grid import Grid


@dataclass(frozen=True)
class Transfer:
    """What is taken from where. keeps_optimizer: moments and step as well as weights."""

    folder: Path
    plan: Plan
    vocabularies: Vocabularies
    keeps_optimizer: bool


def adapt_into(transfer: Transfer, chunks: list[nn.Module], optimizer: SavedOptimizer, grid: Grid) -> None:
    """Give model chunks (without DDP), drawn and untrained, what the plan takes from the checkpoint. A collective.

    Weights come as float32 master weights, of which each rank reads its own, and spread from there. Raises UserError on
    all ranks when a tensor is damaged or missing on any.
    """
    fault: Exception | None = None
    try:
        _read(transfer, chunks, optimizer)
    except (CorruptCheckpoint, UserError) as error:
        fault = error
    _raise_on_all(fault, transfer.folder, grid)
    share_weights(optimizer)


@torch.no_grad()
def _read(transfer: Transfer, chunks: list[nn.Module], optimizer: SavedOptimizer) -> None:
    manifest = read_manifest(transfer.folder)
    reader = AdaptedReader(ShardReader(transfer.folder, manifest), transfer.plan, transfer.vocabularies)
    for box in optimizer_tensors(optimizer, model_state(chunks)):
        is_weight = box.key.startswith(f"optimizer.state.{MASTER_WEIGHTS}.")
        values = reader.fill(box) if is_weight or transfer.keeps_optimizer else None
        if values is not None:
            box.data.copy_(values)
    if transfer.keeps_optimizer:
        load_scalar_optimizer_state(optimizer, manifest.contents.optimizer)


def _raise_on_all(fault: Exception | None, folder: Path, grid: Grid) -> None:
    """One rank's fault is every rank's: half an adapted model is none."""
    own = (str(fault), isinstance(fault, UserError)) if fault is not None else None
    faults: list[tuple[str, bool] | None] = [None] * grid.world_size
    dist.all_gather_object(faults, own)
    for text, is_mismatch in filter(None, faults):
        if is_mismatch:
            raise UserError(text)
        raise UserError(f"--load: {text}; choose an older checkpoint than {folder.name} with --load-iteration.")
