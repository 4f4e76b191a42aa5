"""Writing that leaves either the old file or the whole new one: write aside, sync, rename, sync the folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from megatron.basics.errors import UserError


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """A file object whose content appears at `path` when the block ends well, and nowhere when it does not.

    Raises UserError when the disk is full or the folder cannot be written; the temporary file is gone by then.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~current_umask())  # mkstemp makes files private; ours follow the user's umask
        os.replace(temporary, path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise_for_disk(error, path)
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def raise_for_disk(error: OSError, path: str | os.PathLike[str]) -> NoReturn:
    """Turn a full disk or a path that cannot be written into one sentence; re-raise anything else."""
    reasons = {
        errno.ENOSPC: "the disk is full; free some space and start again",
        errno.EDQUOT: "the disk quota is used up; free some space and start again",
        errno.EACCES: "permission denied; choose a folder that you may write to",
        errno.EIO: "the disk reported an input/output error; check it, or choose another one",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.EEXIST: "a part of its path is a file; choose another folder",
        errno.ENOTDIR: "a part of its path is a file; choose another folder",
        errno.EISDIR: "a folder has that name; choose another name",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
        errno.EFBIG: "the file is larger than this file system or limit allows; choose another disk",
    }
    if error.errno in reasons:
        raise UserError(f"{path} could not be written: {reasons[error.errno]}.") from error
    raise error


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as JSON, atomically."""
    with atomic_writer(path, "w") as file:
        json.dump(content, file, indent=2, sort_keys=False)
        file.write("\n")


def current_umask() -> int:
    """The permission bits that new files of this process lack."""
    current = os.umask(0)
    os.umask(current)
    return current
