"""Safetensors files, read one tensor, or a box of one, after the other.

A map of the file, which the library's own reader keeps, would leave every page that was read in the memory of the
process; a conversion of a large model is to fit a small machine.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

# What a header calls the types of weights, and what torch calls them.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
CHECKED_AT_ONCE = 1 << 20  # bytes: they stay in the processor's cache


class BrokenFile(Exception):
    """The end of a sentence that begins with the path of a file."""


@dataclass(frozen=True)
class StoredTensor:
    """dtype: as torch prints it without `torch.`; the header's own word for one that holds no weights, e.g. I8."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers, for a dtype of torch."""
        return math.prod(self.shape) * dtype_of(self.dtype).itemsize


class TensorFile:
    """A safetensors file. Raises BrokenFile when it is none, or is cut off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: dict[str, StoredTensor] = {}
        self._starts: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        try:
            with safe_open(path, framework="numpy"):  # compares the header with the file, every offset of it
                pass
            with open(path, "rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length))
        except (SafetensorError, OSError, ValueError) as error:
            raise BrokenFile(f"cannot be read ({error})") from error
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = entry["data_offsets"]
            self.tensors[name] = StoredTensor(DTYPES.get(entry["dtype"], entry["dtype"]), tuple(entry["shape"]))
            self._starts[name], self._sizes[name] = 8 + length + start, end - start

    @property
    def data_size(self) -> int:
        """Bytes of all tensors."""
        return sum(self._sizes.values())

    def read(self, name: str) -> Tensor:
        """A tensor on the host, in the dtype of the file."""
        shape = self.tensors[name].shape
        return self.read_box(name, (0,) * len(shape), shape)

    def read_box(self, name: str, origin: Sequence[int], shape: Sequence[int]) -> Tensor:
        """The part of a tensor of that shape which begins at `origin`; nothing besides is read."""
        stored = self.tensors[name]
        box = torch.empty(tuple(shape), dtype=dtype_of(stored.dtype))
        starts, size = _runs(stored.shape, origin, shape, box.element_size())
        self._fill(name, bytes_of(box), (starts + self._starts[name]).tolist(), size)
        return box

    def checksum(self, name: str) -> int:
        """CRC-32 of the bytes of a tensor."""
        checksum, buffer = 0, memoryview(bytearray(CHECKED_AT_ONCE))
        for start in range(0, self._sizes[name], CHECKED_AT_ONCE):
            part = buffer[: self._sizes[name] - start]
            self._fill(name, part, [self._starts[name] + start], len(part))
            checksum = zlib.crc32(part, checksum)
        return checksum

    def _fill(self, name: str, place: memoryview, starts: Iterable[int], size: int) -> None:
        """Read `size` bytes from each start on, one behind the other."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                for number, start in enumerate(starts):
                    rest = place[number * size : (number + 1) * size]
                    while count := len(rest) and os.preadv(descriptor, [rest], start):
                        rest, start = rest[count:], start + count
                    if rest:
                        raise BrokenFile(f"ends inside {name}")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise BrokenFile(f"cannot be read at {name} ({error})") from error


def _runs(
    whole: Sequence[int], origin: Sequence[int], shape: Sequence[int], itemsize: int
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], int]:
    """Where the bytes of a box begin in those of the whole tensor, and how many lie together at each place."""
    steps = [math.prod(whole[axis + 1 :]) for axis in range(len(whole))]
    cut = max((axis for axis, length in enumerate(shape) if length != whole[axis]), default=0)
    starts = np.full(1, sum(first * step for first, step in zip(origin, steps, strict=True)), np.int64)
    for axis in range(cut):
        starts = (starts[:, None] + np.arange(shape[axis]) * steps[axis]).ravel()
    return starts * itemsize, math.prod(shape[cut:]) * itemsize


def dtype_of(name: str) -> torch.dtype:
    """torch.bfloat16 of "bfloat16"."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype), name
    return dtype


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous host tensor, where they are."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
