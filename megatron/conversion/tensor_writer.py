"""Safetensors files, written one tensor after the other: the header says beforehand what will come."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError
from megatron.conversion.tensor_file import DTYPES, bytes_of, dtype_of

CODES = {name: code for code, name in DTYPES.items()}
ALIGNMENT = 8  # of a header's length, as the format asks
BLOCK = 1 << 20  # numbers that are turned into another dtype at once: they stay in the processor's cache


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
    tensors: Iterable[Tensor],
    advance: Callable[[int], None],
) -> dict[str, int]:
    """Write all shards, durably: the CRC-32 of each tensor's bytes, by its name.

    tensors: in the order of the plan, of its shapes; each is turned into the planned dtype. They are made in a thread
    beside the one that writes, one ahead of it. advance: hears of bytes that are written. Raises UserError when the
    disk does not let us write, and for a number that the planned dtype cannot hold.
    """
    checksums = {}
    made = _one_ahead(iter(tensors))
    for file_name, planned in shards.items():
        with atomic_writer(folder / file_name) as file:
            file.write(_header(planned))
            for plan in planned:
                checksum = 0
                for block in _blocks(next(made), plan):
                    checksum = zlib.crc32(block, checksum)
                    file.write(block)
                    advance(len(block))
                checksums[plan.name] = checksum
    return checksums


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


def _blocks(tensor: Tensor, plan: PlannedTensor) -> Iterator[memoryview]:
    """The bytes of a tensor in the planned dtype, part after part."""
    assert tuple(tensor.shape) == plan.shape, f"{plan.name} is {list(tensor.shape)}, planned was {list(plan.shape)}"
    dtype = dtype_of(plan.dtype)
    for block in tensor.reshape(-1).split(BLOCK):
        turned = block.to(dtype)
        is_narrowed = torch.finfo(dtype).max < torch.finfo(block.dtype).max
        if is_narrowed and not torch.equal(turned.isfinite(), block.isfinite()):
            raise UserError(f"--dtype {plan.dtype} cannot hold the numbers of {plan.name}; use --dtype bfloat16.")
        yield bytes_of(turned)


def _one_ahead(tensors: Iterator[Tensor]) -> Iterator[Tensor]:
    """The same, each made while the one before it is in use."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as thread:
        coming = thread.submit(next, tensors, None)
        while (tensor := coming.result()) is not None:
            coming = thread.submit(next, tensors, None)
            yield tensor
