"""A lock on a folder that dies with its owner."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from megatron.basics.atomic_files import raise_for_disk
from megatron.basics.errors import UserError

LOCK_NAME = ".lock"


def lock_folder(folder: Path) -> IO[str]:
    """Hold `folder` until the returned file is closed or this process ends, however it ends.

    Raises UserError naming the owner when another process holds it, or when the disk does not let us write.
    """
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - the open file is the lock
    except OSError as error:
        raise_for_disk(error, path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise UserError(f"{folder} is being written by {owner}; wait for it or choose another --save.") from error
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
    except OSError as error:
        raise_for_disk(error, path)
    return file
