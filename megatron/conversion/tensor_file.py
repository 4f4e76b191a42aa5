"""Safetensors files, read one tensor after the other.

A map of the file, which the library's own reader keeps, would leave every page that was read in the memory of the
process; a conversion of a large model is to fit a small machine.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

# What a header calls the types of weights, and what torch calls them.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


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
        stored = self.tensors[name]
        whole = torch.empty(stored.shape, dtype=dtype_of(stored.dtype))
        self.read_into(name, whole)
        return whole

    def read_into(self, name: str, target: Tensor) -> None:
        """The same, into a contiguous tensor of its dtype and shape."""
        place = bytes_of(target)
        assert len(place) == self._sizes[name], f"{name} has {self._sizes[name]} bytes"
        try:
            with open(self.path, "rb") as file:
                file.seek(self._starts[name])
                count = file.readinto(place)
        except OSError as error:
            raise BrokenFile(f"cannot be read at {name} ({error})") from error
        if count != len(place):
            raise BrokenFile(f"ends inside {name}")


def dtype_of(name: str) -> torch.dtype:
    """torch.bfloat16 of "bfloat16"."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype), name
    return dtype


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous host tensor, where they are."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
