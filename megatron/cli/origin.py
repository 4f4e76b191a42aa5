"""The checkpoint that a run starts from: its own newest one, one of another run, or none. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from megatron.adaptation.options import AdaptationOptions
from megatron.basics.errors import UserError
from megatron.checkpoint import folders
from megatron.checkpoint.contents import Contents
from megatron.checkpoint.manifest import CorruptCheckpoint, read_manifest
from megatron.cli.run_config import RunConfig


@dataclass(frozen=True)
class Origin:
    """A run folder to start from.

    weights_only: a new run begins with these weights. adaptation: a new run begins with what becomes of them.
    """

    run_folder: Path
    iteration: int | None
    weights_only: bool
    adaptation: AdaptationOptions | None = None


def find_origin(config: RunConfig, adaptation: AdaptationOptions | None = None) -> Origin | None:
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
    origin = Origin(run_folder, options.load_iteration, weights_only=options.finetune, adaptation=adaptation)
    if adaptation is None:
        return origin
    # The source may be training on: what is checked here is what will be read.
    return replace(origin, iteration=newest_checkpoint(origin)[0])


def newest_contents(origin: Origin) -> Contents:
    """What the newest checkpoint of an origin says of itself; no tensor is read. Raises UserError."""
    return newest_checkpoint(origin)[2]


def newest_checkpoint(origin: Origin) -> tuple[int, Path, Contents]:
    """(iteration, folder, contents) of the newest checkpoint of an origin that has a sound manifest."""
    fault: CorruptCheckpoint | None = None
    for iteration, folder in reversed(folders.checkpoints_of(origin.run_folder)):
        if origin.iteration not in (None, iteration):
            continue
        try:
            return iteration, folder, read_manifest(folder).contents
        except CorruptCheckpoint as error:
            fault = error
    if fault is None:
        raise UserError(f"--load-iteration {origin.iteration}: {origin.run_folder} has no such checkpoint.")
    raise UserError(f"{origin.run_folder} holds no checkpoint that can be loaded: {fault}.")


def chosen_checkpoint(run_folder: Path, iteration: int | None) -> tuple[int, Path, Contents]:
    """The same of the checkpoint of that iteration, of the newest where it is None, and never of another one.

    What a conversion is made of or compared with is asked for by name. Raises UserError for a damaged one.
    """
    if not folders.checkpoints_of(run_folder):
        raise UserError(
            f"--load {run_folder} holds no complete checkpoint; give a run folder with iter_NNNNNNN folders."
        )
    found = folders.named_checkpoints(run_folder)
    chosen = found[-1][0] if iteration is None else iteration
    if chosen not in dict(found):
        raise UserError(f"--load-iteration {chosen}: {run_folder} has no such checkpoint.")
    folder = dict(found)[chosen]
    try:
        return chosen, folder, read_manifest(folder).contents
    except CorruptCheckpoint as fault:
        raise UserError(f"{fault}; name another checkpoint with --load-iteration.") from fault
