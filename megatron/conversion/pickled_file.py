"""Files of torch.save, of which nothing but tensors is unpickled."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from megatron.conversion.tensor_file import BrokenFile, StoredTensor


class PickledFile:
    """A state dict that torch.save wrote. Raises BrokenFile for one that holds, or would run, anything else.

    The numbers stay on the disk until they are asked for, but for files of torch before 1.6, which are read whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content = _load(path)
        self.tensors: dict[str, StoredTensor] = {}
        for name, tensor in self._content.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise BrokenFile(f"holds {str(name)[:80]}, which is no tensor")
            if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
                raise BrokenFile(f"holds {name[:80]}, which is sparse, quantized or without numbers")
            self.tensors[name] = StoredTensor(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))

    @property
    def data_size(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self._content.values())

    def read_box(self, name: str, origin: Sequence[int], shape: Sequence[int]) -> Tensor:
        """The part of a tensor of that shape which begins at `origin`, on the host."""
        box = tuple(slice(start, start + length) for start, length in zip(origin, shape, strict=True))
        return self._content[name].detach()[box].clone(memory_format=torch.contiguous_format)


def _load(path: Path) -> dict[str, Tensor]:
    try:
        is_archive = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        raise BrokenFile("is a pickle of more than tensors, which could run any code, and is not opened") from error
    except Exception as error:  # a broken pickle may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BrokenFile(f"cannot be read ({reason})") from error
    if not isinstance(content, dict):
        raise BrokenFile("holds no state dict")
    return content
