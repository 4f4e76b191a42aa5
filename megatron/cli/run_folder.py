"""What must hold of the --save folder before anything is written into it: all nodes share it, and there is room."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

import torch.distributed as dist

from megatron.basics.atomic_files import raise_for_disk
from megatron.basics.errors import UserError
from megatron.checkpoint.shards import owned
from megatron.layout.grid import Grid
from megatron.loop.saving import tensors_of_checkpoint
from megatron.loop.setup import TrainableModel

# NFS clients may believe for a minute (acdirmax) that a folder which they once looked for does not exist.
SECONDS_TO_SEE = 65.0


def require_shared(run_folder: Path, grid: Grid) -> None:
    """Refuse a folder in which some rank does not see what rank 0 writes: no checkpoint there would be whole.

    A collective; the folder exists on rank 0. Raises UserError on all ranks.
    """
    sign = _hang_up_sign(run_folder) if grid.is_main else None
    names = [sign.name if sign else None]
    dist.broadcast_object_list(names, src=0)
    blind: list[str | None] = [None] * grid.world_size
    dist.all_gather_object(blind, None if _sees(run_folder / str(names[0])) else socket.gethostname())
    if sign:
        with contextlib.suppress(OSError):  # it did its work; the next start removes what stays
            sign.unlink()
    for rank, host in enumerate(blind):
        if host is not None:
            raise UserError(
                f"--save {run_folder}: rank {rank} on {host} does not see what rank 0 writes there; it must be a "
                "folder that all nodes share."
            )


def require_space(run_folder: Path, model: TrainableModel, grid: Grid) -> None:
    """Refuse to begin a run whose first checkpoint cannot fit: weights and what the optimizer keeps.

    A collective; the folder exists on all ranks.
    """
    sizes = [0] * grid.world_size
    dist.all_gather_object(sizes, sum(tensor.data.nbytes for tensor in owned(tensors_of_checkpoint(model))))
    needed = sum(sizes)
    free = shutil.disk_usage(run_folder).free
    if free < needed:
        raise UserError(
            f"--save {run_folder}: a checkpoint needs {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free; free "
            "some space or choose another disk."
        )


def _hang_up_sign(run_folder: Path) -> Path:
    """An empty file of a name that nobody has looked for before; the next start removes one that was left behind."""
    try:
        descriptor, path = tempfile.mkstemp(prefix=".seen_by_all.", suffix=".tmp", dir=run_folder)
    except OSError as error:
        raise_for_disk(error, run_folder)
    os.close(descriptor)
    return Path(path)


def _sees(path: Path) -> bool:
    deadline = time.monotonic() + SECONDS_TO_SEE
    while not path.exists():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True
