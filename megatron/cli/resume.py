"""Where a run starts from: its own newest checkpoint, another run's, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist

from megatron.adaptation.options import AdaptationOptions
from megatron.adaptation.plan import make_plan
from megatron.adaptation.reader import Vocabularies
from megatron.adaptation.transfer import Transfer, adapt_into
from megatron.adaptation.vocabulary import require_same_words
from megatron.basics.errors import UserError
from megatron.checkpoint.contents import Progress
from megatron.checkpoint.load import load_newest
from megatron.cli.origin import Origin, newest_checkpoint, newest_contents
from megatron.cli.run_config import RunConfig
from megatron.cli.run_record import lineage_line, require_same_model, require_same_run
from megatron.layout.grid import Grid
from megatron.loop.setup import TrainableModel
from megatron.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class StartingPoint:
    """How far the run is, and what its weights were trained on before it began.

    is_adapted: the weights have just become another model's, and no checkpoint holds them yet.
    """

    progress: Progress = field(default_factory=Progress)
    earlier_lineage: list[dict[str, Any]] = field(default_factory=list)
    is_adapted: bool = False


def check_origin(origin: Origin, config: RunConfig, tokenizer: Tokenizer) -> None:
    """Refuse an origin whose record does not fit this run, before anything is allocated."""
    contents = newest_contents(origin)
    if origin.adaptation is not None:
        require_same_words(contents.tokenizer, tokenizer, str(origin.run_folder))
        return
    check = require_same_model if origin.weights_only else require_same_run
    check(contents, config, tokenizer, origin.run_folder)


def start_from(
    origin: Origin | None,
    config: RunConfig,
    tokenizer: Tokenizer,
    model: TrainableModel,
    grid: Grid,
    say: Callable[[str], None],
) -> StartingPoint:
    """Load what the origin holds. A collective; raises UserError on all ranks when they do not agree about it."""
    _require_one_origin(origin, grid)
    if origin is None:
        return StartingPoint()
    if origin.adaptation is not None:
        return _adapt(origin, origin.adaptation, config, tokenizer, model, grid, say)
    chunks = [chunk.module for chunk in model.chunks]
    optimizer = None if origin.weights_only else model.inner_optimizer
    loaded = load_newest(origin.run_folder, grid, chunks, optimizer, iteration=origin.iteration, say=say)
    if origin.weights_only:
        model.optimizer.reload_model_params()  # the master weights are copies of those that were just loaded
        say(f"loaded the weights of {loaded.folder}; iteration, schedule and optimizer start afresh")
        return StartingPoint(earlier_lineage=loaded.contents.lineage)
    say(f"loaded {loaded.folder}: {lineage_line(loaded.contents.lineage)}")
    return StartingPoint(loaded.contents.progress, loaded.contents.lineage[:-1])


def _adapt(
    origin: Origin,
    options: AdaptationOptions,
    config: RunConfig,
    tokenizer: Tokenizer,
    model: TrainableModel,
    grid: Grid,
    say: Callable[[str], None],
) -> StartingPoint:
    """A new run from the weights of another: with its moments and its place in the schedule where these are kept."""
    _, folder, contents = newest_checkpoint(origin)
    before = RunConfig.from_dict(contents.run, str(folder), warn=lambda sentence: None)
    transfer = Transfer(
        folder=folder,
        plan=make_plan(before.architecture, options, before.model, config.model),
        vocabularies=Vocabularies(contents.tokenizer["vocabulary_size"], tokenizer.vocabulary_size),
        keeps_optimizer=options.optimizer_state == "keep",
    )
    adapt_into(transfer, [chunk.module for chunk in model.chunks], model.inner_optimizer, grid)
    say(
        f"adapted {folder}: {lineage_line(contents.lineage)} + {config.architecture}:{config.objective}; optimizer "
        f"state {options.optimizer_state}, schedule {options.schedule}"
    )
    progress = Progress()
    if options.schedule == "continue":
        # Tokens are counted anew: the lineage has those of the source.
        there = contents.progress
        progress = Progress(iteration=there.iteration, consumed_samples=there.consumed_samples)
        for line in ends_of_decay(config, there.iteration):
            say(line)
    return StartingPoint(progress, contents.lineage, is_adapted=True)


def ends_of_decay(config: RunConfig, iteration: int) -> Iterator[str]:
    """A line for an adapted run that takes its steps behind `iteration` past the end of the decay."""
    end, steps = config.optimizer.lr_decay_iters, config.batch.train_iters
    if end is not None and max(end, iteration) < steps:
        yield (
            f"warning: the decay ends at step {end} of {steps}; from there on the learning rate is --min-lr "
            f"{config.optimizer.min_lr:g}: for another one give --lr-decay-iters {steps} or --schedule rewarm."
        )


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
