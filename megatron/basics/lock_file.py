"""A lock on a folder that dies with its owner."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from megatron.basics.atomic_files import raise_for_disk
from megatron.basics.errors import UserError

logger = logging.getLogger(__name__)

LOCK_NAME = ".lock"
_IN_USE = {errno.EAGAIN, errno.EACCES}
_NO_LOCKS_HERE = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}


@contextlib.contextmanager
def lock_folder(folder: Path, flag: str = "--save") -> Iterator[None]:
    """Hold `folder`, that `flag` names, inside the block, or until this process ends, however it ends.

    A folder that was made for the lock and holds nothing else afterwards goes with it: what wanted it never began.
    Raises UserError naming the owner when another process holds it, or when the disk does not let us write. A file
    system without locks is a warning: it is then up to people that no two processes write the folder.
    """
    path = folder / LOCK_NAME
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _held(path, flag)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
    except OSError as error:
        raise_for_disk(error, path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # an error here would hide the one that ended the block
            if is_new and os.listdir(folder) == [LOCK_NAME]:
                path.unlink()
                folder.rmdir()
        file.close()


def _held(path: Path, flag: str) -> IO[str]:
    """The open lock file, locked."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - the open file is the lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS_HERE:
                logger.warning(
                    "warning: %s: this file system has no locks (%s); see to it that no other run writes there.",
                    path.parent,
                    error.strerror,
                )
                return file
            if error.errno not in _IN_USE:
                file.close()
                raise
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise UserError(
                f"{path.parent} is being written by {owner}; wait for it or choose another {flag}."
            ) from error
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()  # its owner removed it between our two calls
