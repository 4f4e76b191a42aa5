"""A folder that appears whole under its name, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from megatron.basics.atomic_files import raise_for_disk, sync_folder
from megatron.basics.errors import UserError
from megatron.basics.lock_file import LOCK_NAME, lock_folder


def occupied(flag: str, folder: str | Path) -> Iterator[str]:
    """A sentence when there is something under the name of a folder that is to be made, be it a disk."""
    path = Path(folder)
    if path.is_dir() and any(path.iterdir()):
        yield f"{flag} {folder} is not empty; choose another folder, or remove it."
    elif path.exists() and not path.is_dir():
        yield f"{flag} {folder} is a file; choose the name of a new folder."
    elif os.path.ismount(path.resolve()):
        yield f"{flag} {folder} is where a disk is mounted, and no folder can take its place; name one inside it."


def require_space(folder: Path, needed: int) -> None:
    """Raise UserError when the disk on which a folder will grow has no room for `needed` bytes."""
    existing = folder.resolve().parent
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"--save {folder}: {needed / 1e9:.3g} GB will be written and {free / 1e9:.3g} GB are free; free some space "
            "or choose another disk."
        )


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, FOLDER.unfinished, which is called FOLDER when the block ends well and gone when it does not.

    What a killed process has left under the first name is removed. Raises UserError when another process fills it, when
    the disk does not let us write, and when either name is taken; what is whole stays under the first name where it
    cannot get the second.
    """
    target = target.resolve()
    work = target.with_name(f"{target.name}.unfinished")
    faults = [*occupied("--save", target)]
    if work.exists() and not (work / LOCK_NAME).exists():
        faults.append(f"--save {target}: {work} is in the way, and none of ours; move it away.")
    if faults:
        raise UserError(*faults)
    with lock_folder(work):
        _clear(work)
        try:
            yield work
            sync_folder(work)
        except BaseException as fault:
            with contextlib.suppress(OSError):
                _clear(work)
                (work / LOCK_NAME).unlink()
                work.rmdir()
            if isinstance(fault, OSError):
                raise_for_disk(fault, target)
            raise
        try:
            work.rename(target)
        except OSError as fault:
            (work / LOCK_NAME).unlink()  # with it the next process would take the folder for one to clear
            raise UserError(
                f"{work} is whole and cannot be called {target} ({fault.strerror}); move it to a name of its own."
            ) from fault
        (target / LOCK_NAME).unlink()
        sync_folder(target.parent)


def _clear(work: Path) -> None:
    """Remove everything but the lock."""
    for path in work.iterdir():
        if path.name == LOCK_NAME:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
