"""Safetensors files, written block after block: the header says beforehand what will come."""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError
from megatron.conversion.tensor_file import DTYPES, bytes_of, dtype_of

CODES = {name: code for code, name in DTYPES.items()}
ALIGNMENT = 8  # of a header's length, as the format asks
TURNED_AT_ONCE = 1 << 20  # numbers, from one dtype into another: they stay in the processor's cache
PART = 1 << 19  # numbers that are handed over at once
AHEAD = 8  # parts that wait; one of the largest blocks has as many


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor that will be written: its name, its dtype as torch prints it without `torch.`, its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * dtype_of(self.dtype).itemsize


def plan_shards(planned: Iterable[PlannedTensor], max_bytes: int) -> list[list[PlannedTensor]]:
    """Tensors by file, in their order: as many in each as fit `max_bytes`; a larger one has a file of its own."""
    shards: list[list[PlannedTensor]] = []
    room = 0
    for tensor in planned:
        if not shards or tensor.nbytes > room:
            shards.append([])
            room = max_bytes
        shards[-1].append(tensor)
        room -= tensor.nbytes
    return shards


def write_files(
    folder: Path,
    shards: Mapping[str, Sequence[PlannedTensor]],
    blocks: Iterable[Tensor],
    advance: Callable[[int], None],
    *,
    with_checksums: bool = False,
) -> dict[str, int]:
    """Write all shards, durably: the CRC-32 of each tensor's bytes, by its name, where they are wanted.

    blocks: the tensors in the order of the plan, each as one block of rows or several; they are turned into the planned
    dtypes. Blocks are made in a thread beside the one that writes, a few ahead of it. advance: hears of bytes that are
    written. Raises UserError when the disk does not let us write, and for a number that the planned dtype cannot hold.
    """
    names = [plan.name for planned in shards.values() for plan in planned] if with_checksums else []
    checksums = dict.fromkeys(names, 0)
    with _one_thread_each(), contextlib.closing(_some_ahead(iter(blocks))) as made:
        for file_name, planned in shards.items():
            with atomic_writer(folder / file_name) as file:
                file.write(_header(planned))
                for plan in planned:
                    for part in _bytes_of(plan, made):
                        if with_checksums:
                            checksums[plan.name] = zlib.crc32(part, checksums[plan.name])
                        _write(file, part)
                        advance(len(part))
    return checksums


def _write(file: IO[bytes], part: memoryview) -> None:
    """Write, and let the disk begin at once: at the end of the file little is left to wait for."""
    place = file.tell()
    file.write(part)
    # For pages that have not reached the disk this advice means: send them there. None of them is dropped.
    os.posix_fadvise(file.fileno(), place, len(part), os.POSIX_FADV_DONTNEED)


def _header(planned: Sequence[PlannedTensor]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in planned:
        end = start + tensor.nbytes
        entries[tensor.name] = {"dtype": CODES[tensor.dtype], "shape": tensor.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _bytes_of(plan: PlannedTensor, made: Iterator[Tensor]) -> Iterator[memoryview]:
    """The bytes of a tensor in the planned dtype, part after part."""
    dtype = dtype_of(plan.dtype)
    left = math.prod(plan.shape)
    while left:
        block = next(made)
        left -= block.numel()
        fits = left >= 0 and (not block.numel() or tuple(block.shape[1:]) == plan.shape[1:])
        assert fits, f"a block {list(block.shape)} of {plan.name} {list(plan.shape)}"
        for part in block.reshape(-1).split(TURNED_AT_ONCE):
            turned = part.to(dtype)
            is_narrowed = torch.finfo(dtype).max < torch.finfo(part.dtype).max
            if is_narrowed and not torch.equal(turned.isfinite(), part.isfinite()):
                wider = "float32" if dtype == torch.bfloat16 else "bfloat16"
                raise UserError(f"--dtype {plan.dtype} cannot hold the numbers of {plan.name}; use --dtype {wider}.")
            yield bytes_of(turned)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Operations of torch stay in the thread that calls them: they move bytes, and helpers would only spin."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _some_ahead(blocks: Iterator[Tensor]) -> Generator[Tensor]:
    """The same in parts, of which the next ones are made while one is in use."""
    parts = _parts(blocks)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as thread:
        coming = deque(thread.submit(next, parts, None) for _ in range(AHEAD))
        while (part := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, parts, None))
            yield part


def _parts(blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    """Each block as parts of its rows. None of it is held here any more while the next one is made."""
    while (block := next(blocks, None)) is not None:
        parts = block.split(max(1, PART // max(1, math.prod(block.shape[1:])))) if block.dim() else (block,)
        del block
        yield from parts
        del parts
