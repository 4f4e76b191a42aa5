"""Checkpoints of a run folder: their names, which are complete, and which to keep."""

from __future__ import annotations

import itertools
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from megatron.basics.atomic_files import atomic_writer, sync_folder
from megatron.basics.errors import UserError
from megatron.checkpoint.manifest import MANIFEST_NAME

logger = logging.getLogger(__name__)

LATEST_NAME = "latest_checkpointed_iteration.txt"
_NAME = re.compile(r"iter_(\d{7,})")
_FILE_NAME = re.compile(rf"{re.escape(MANIFEST_NAME)}|shard_\d+\.safetensors")


def checkpoint_folder(run_folder: Path, iteration: int) -> Path:
    """RUN/iter_0000500."""
    return run_folder / f"iter_{iteration:07d}"


def unfinished_folder(run_folder: Path, iteration: int) -> Path:
    """Where a checkpoint grows until it is complete."""
    return run_folder / f".iter_{iteration:07d}.unfinished"


def checkpoints_of(run_folder: Path) -> list[tuple[int, Path]]:
    """(iteration, folder) of every checkpoint that was finished, oldest first.

    The folders themselves are the truth; latest_checkpointed_iteration.txt is written for people and other tools.
    """
    return [entry for entry in named_checkpoints(run_folder) if (entry[1] / MANIFEST_NAME).is_file()]


def named_checkpoints(run_folder: Path) -> list[tuple[int, Path]]:
    """The same of every folder with the name of a checkpoint; one without a manifest is a copy that is not whole."""
    found = []
    if run_folder.is_dir():
        for path in run_folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and path.is_dir():
                found.append((int(match.group(1)), path))
    return sorted(found)


def publish(run_folder: Path, iteration: int) -> Path:
    """Give a finished checkpoint its name, durably.

    One of the same iteration that was there before is set aside: a run comes to an iteration twice only when it had
    to fall back to an older checkpoint, because that one was damaged.
    """
    source, target = unfinished_folder(run_folder, iteration), checkpoint_folder(run_folder, iteration)
    sync_folder(source)
    if target.exists():
        set_aside(target)
    source.rename(target)
    sync_folder(run_folder)
    try:
        with atomic_writer(run_folder / LATEST_NAME, "w") as file:
            file.write(f"{iteration}\n")
    except UserError as fault:
        logger.warning("warning: %s The checkpoint itself, %s, is complete.", fault, target)
    return target


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint to iter_NNNNNNN.damaged, where nothing counts or removes it: people may need it."""
    names = (f"{folder.name}.damaged{number}" for number in itertools.chain([""], itertools.count(2)))
    target = next(path for path in map(folder.with_name, names) if not path.exists())
    folder.rename(target)
    logger.warning("warning: training has gone past the damaged %s; it is now %s.", folder, target.name)
    return target


def set_aside_between(run_folder: Path, older: int, newer: int) -> list[Path]:
    """Set aside all checkpoints between two iterations; neither of the two. Returns their new names, oldest first."""
    return [set_aside(folder) for iteration, folder in checkpoints_of(run_folder) if older < iteration < newer]


def refuse_folders_of_others(run_folder: Path) -> None:
    """Raise UserError when something has the name of a checkpoint and is none, or holds what none of ours does.

    A save of that iteration would have to move it: it may be all that is left of somebody's run.
    """
    for path in run_folder.glob("iter_*"):
        if not _NAME.fullmatch(path.name):
            continue
        if not path.is_dir() or not all(_FILE_NAME.fullmatch(file.name) for file in path.iterdir()):
            raise UserError(
                f"--save {run_folder}: {path.name} is not a checkpoint of this program; choose another folder, or "
                "move it away."
            )


def remove_unfinished(run_folder: Path) -> None:
    """Remove what a killed process left: half a checkpoint, files that `atomic_writer` had not renamed yet.

    Only for the holder of the folder's lock.
    """
    for path in [*run_folder.glob(".iter_*.unfinished"), *run_folder.glob(".iter_*.removed")]:
        shutil.rmtree(path, ignore_errors=True)
    for path in run_folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def remove_surplus(run_folder: Path, newest: int, keep_last: int | None, keep_every: int | None) -> list[int]:
    """Delete all but the last `keep_last` checkpoints up to iteration `newest` and those at multiples of `keep_every`.

    newest: one that is known to be sound. Whatever is newer was passed over as damaged: it neither counts nor goes.
    Returns the deleted iterations.
    """
    removed = []
    known = [entry for entry in checkpoints_of(run_folder) if entry[0] <= newest]
    for iteration, folder in _surplus(known, keep_last, keep_every):
        remove_checkpoint(folder)
        removed.append(iteration)
    return removed


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint, its name first: neither a reader nor a crash meets half of one that looks whole."""
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _surplus(
    checkpoints: list[tuple[int, Path]], keep_last: int | None, keep_every: int | None
) -> Iterator[tuple[int, Path]]:
    if keep_last is None:
        return
    for iteration, folder in checkpoints[:-keep_last]:
        if not (keep_every and iteration % keep_every == 0):
            yield iteration, folder
