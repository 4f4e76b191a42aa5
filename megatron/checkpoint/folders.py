"""Checkpoints of a run folder: their names, which are complete, and which to keep."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from megatron.basics.atomic_files import atomic_writer, sync_folder
from megatron.checkpoint.manifest import MANIFEST_NAME

LATEST_NAME = "latest_checkpointed_iteration.txt"
_NAME = re.compile(r"iter_(\d{7,})")


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
    found = []
    if run_folder.is_dir():
        for path in run_folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and (path / MANIFEST_NAME).is_file():
                found.append((int(match.group(1)), path))
    return sorted(found)


def publish(run_folder: Path, iteration: int) -> Path:
    """Give a finished checkpoint its name, durably.

    One of the same iteration that was there before goes: a run comes to an iteration twice only when it had to fall
    back to an older checkpoint, because that one was damaged.
    """
    source, target = unfinished_folder(run_folder, iteration), checkpoint_folder(run_folder, iteration)
    sync_folder(source)
    if target.exists():
        remove_checkpoint(target)
    source.rename(target)
    sync_folder(run_folder)
    with atomic_writer(run_folder / LATEST_NAME, "w") as file:
        file.write(f"{iteration}\n")
    return target


def remove_unfinished(run_folder: Path) -> None:
    """Remove what a killed process left: half a checkpoint, files that `atomic_writer` had not renamed yet.

    Only for the holder of the folder's lock.
    """
    for path in run_folder.glob(".iter_*.unfinished"):
        shutil.rmtree(path, ignore_errors=True)
    for path in run_folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def remove_surplus(run_folder: Path, keep_last: int | None, keep_every: int | None) -> list[int]:
    """Delete all but the newest `keep_last` checkpoints and those at multiples of `keep_every`; the deleted ones."""
    removed = []
    for iteration, folder in _surplus(checkpoints_of(run_folder), keep_last, keep_every):
        remove_checkpoint(folder)
        removed.append(iteration)
    return removed


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint, manifest first: neither a reader nor a crash meets half of one that looks whole."""
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _surplus(
    checkpoints: list[tuple[int, Path]], keep_last: int | None, keep_every: int | None
) -> Iterator[tuple[int, Path]]:
    if keep_last is None:
        return
    for iteration, folder in checkpoints[:-keep_last]:
        if not (keep_every and iteration % keep_every == 0):
            yield iteration, folder
