"""Settings that make a CPU run fast: the allocator keeps big blocks, and ranks share the cores.

glibc gives every large tensor back to the kernel at once, so that each step faults the same pages in again. Raising
its thresholds makes whole steps 1.1 to 1.2 times faster (`benchmarks/train_step.py`). The thresholds are set in the
running process, so that no launcher is needed.
"""

from __future__ import annotations

import ctypes
import os

import torch

# Option numbers of mallopt(3) in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_WINNING_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "LD_PRELOAD")
_KEEP_BLOCKS_UP_TO = 1 << 30
_GROW_HEAP_BY = 64 << 20


def apply() -> None:
    """Tune allocator and thread count of this process. Settings made by environment variables win."""
    _keep_freed_memory()
    if "OMP_NUM_THREADS" not in os.environ or _set_by_torchrun():
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks_here))


def _keep_freed_memory() -> None:
    if any(
        name in os.environ
        for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "LD_PRELOAD")
    ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library, musl for example: nothing to tune
        return
    mallopt(_M_MMAP_THRESHOLD, _KEEP_BLOCKS_UP_TO)
    mallopt(_M_TRIM_THRESHOLD, _KEEP_BLOCKS_UP_TO)
    mallopt(_M_TOP_PAD, _GROW_HEAP_BY)
    mallopt(_M_ARENA_MAX, 1)  # the arenas of other threads hold 64 MB at most and go back to the kernel all the same


def _set_by_torchrun() -> bool:
    """torchrun sets OMP_NUM_THREADS=1 for more than one rank a node, however many cores there are."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ["OMP_NUM_THREADS"] == "1"
