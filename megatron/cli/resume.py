"""Where a run starts from: its own newest checkpoint, another run's, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist

from megatron.basics.errors import UserError
from megatron.checkpoint import folders
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.load import load_newest
from megatron.checkpoint.manifest import CorruptCheckpoint, read_manifest
from megatron.cli.run_config import RunConfig
from megatron.cli.run_record import require_same_model, require_same_run
from megatron.layout.grid import Grid
from megatron.loop.setup import TrainableModel
from megatron.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class Origin:
    """A run folder to start from. weights_only: a new run begins with these weights."""

    run_folder: Path
    iteration: int | None
    weights_only: bool


@dataclass(frozen=True)
class StartingPoint:
    """How far the run is, and what its weights were trained on before it began."""

    progress: Progress = field(default_factory=Progress)
    earlier_lineage: list[dict[str, Any]] = field(default_factory=list)


def find_origin(config: RunConfig) -> Origin | None:
    """The run folder to load from: --save when it holds a checkpoint, else --load, else None."""
    options = config.checkpoint
    if options.save:
        folders.refuse_folders_of_others(Path(options.save))
    if options.save and folders.checkpoints_of(Path(options.save)):
        return Origin(Path(options.save), None, weights_only=False)
    if not options.load:
        return None
    run_folder = Path(options.load)
    if not folders.checkpoints_of(run_folder):
        raise UserError(
            f"--load {run_folder} holds no complete checkpoint; give a run folder with iter_NNNNNNN folders."
        )
    return Origin(run_folder, options.load_iteration, weights_only=options.finetune)


def check_origin(origin: Origin, config: RunConfig, tokenizer: Tokenizer) -> None:
    """Refuse an origin whose record does not fit this run, before anything is allocated."""
    contents = newest_contents(origin)
    check = require_same_model if origin.weights_only else require_same_run
    check(contents, config, tokenizer, origin.run_folder)


def start_from(origin: Origin | None, model: TrainableModel, grid: Grid, say: Callable[[str], None]) -> StartingPoint:
    """Load what the origin holds. A collective; raises UserError on all ranks when they do not agree about it."""
    _require_one_origin(origin, grid)
    if origin is None:
        return StartingPoint()
    chunks = [chunk.module for chunk in model.chunks]
    optimizer = None if origin.weights_only else model.inner_optimizer
    loaded = load_newest(origin.run_folder, grid, chunks, optimizer, iteration=origin.iteration, say=say)
    if origin.weights_only:
        model.optimizer.reload_model_params()  # the master weights are copies of those that were just loaded
        say(f"loaded the weights of {loaded.folder}; iteration, schedule and optimizer start afresh")
        return StartingPoint(earlier_lineage=loaded.contents.lineage)
    say(f"loaded {loaded.folder}")
    return StartingPoint(loaded.contents.progress, loaded.contents.lineage[:-1])


def _require_one_origin(origin: Origin | None, grid: Grid) -> None:
    """Each rank has looked at the disk for itself, and a shared file system may show nodes different states of it."""
    origins: list[Origin | None] = [None] * grid.world_size
    dist.all_gather_object(origins, origin)
    for rank, other in enumerate(origins):
        if other != origins[0]:
            here, there = ("nothing" if one is None else one.run_folder for one in (origins[0], other))
            raise UserError(
                f"rank 0 would start from {here} and rank {rank} from {there}: --save and --load must be folders that "
                "all nodes share; check that they are mounted everywhere and start again."
            )


def newest_contents(origin: Origin) -> Contents:
    """What the newest checkpoint of an origin says of itself; no tensor is read. Raises UserError."""
    fault: CorruptCheckpoint | None = None
    for iteration, folder in reversed(folders.checkpoints_of(origin.run_folder)):
        if origin.iteration not in (None, iteration):
            continue
        try:
            return read_manifest(folder).contents
        except CorruptCheckpoint as error:
            fault = error
    if fault is None:
        raise UserError(f"--load-iteration {origin.iteration}: {origin.run_folder} has no such checkpoint.")
    raise UserError(f"{origin.run_folder} holds no checkpoint that can be loaded: {fault}.")
