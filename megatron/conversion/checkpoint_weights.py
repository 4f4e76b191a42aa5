"""The weights of one of our checkpoints, whole, whatever the layout that wrote them. Needs no process group."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from megatron.basics.errors import UserError
from megatron.checkpoint.manifest import Manifest, Piece, TensorEntry
from megatron.conversion.tensor_file import BrokenFile, TensorFile, bytes_of, dtype_of

MASTER_WEIGHTS = "optimizer.state.param."


class CheckpointWeights:
    """Tensors by name, whole or in boxes; nothing of them stays in memory. Every piece that is read is checked.

    dtype: of most weights as the model had them, as torch prints it without `torch.`; has_masters: the optimizer's
    float32 weights stand beside them, of which they are roundings.
    """

    def __init__(self, folder: Path, manifest: Manifest, names: Mapping[str, tuple[int, ...]]) -> None:
        """names: the tensors of the model and their shapes. Raises UserError for each that is not there so."""
        self.folder, self._entries = folder, manifest.tensors
        self._files: dict[str, TensorFile] = {}
        self._sound: set[Piece] = set()
        faults = [*self._faults(names)]
        if faults:
            raise UserError(*faults)
        sizes: Counter[str] = Counter()
        for name, shape in names.items():
            sizes[self._entries[name].dtype] += math.prod(shape)
        ((self.dtype, _),) = sizes.most_common(1)
        self.has_masters = all(self._is_master(f"{MASTER_WEIGHTS}{name}", shape) for name, shape in names.items())

    def read(self, name: str, *, master: bool = False) -> Tensor:
        """A tensor on the host; `master`: in float32, as the optimizer has it.

        Raises UserError that names the file where the checkpoint is damaged.
        """
        shape = self._entry(name, master).shape
        return self.read_box(name, (0,) * len(shape), shape, master=master)

    def read_box(self, name: str, origin: Sequence[int], shape: Sequence[int], *, master: bool = False) -> Tensor:
        """The part of such a tensor of that shape which begins at `origin`."""
        entry = self._entry(name, master)
        box = torch.empty(tuple(shape), dtype=dtype_of(entry.dtype))
        for piece in entry.pieces:
            edges = [
                (max(first, begin), min(first + size, begin + length))
                for first, size, begin, length in zip(origin, shape, piece.offset, piece.shape, strict=True)
            ]
            if any(start >= end for start, end in edges):
                continue
            within = [start - begin for (start, _), begin in zip(edges, piece.offset, strict=True)]
            part = self._read(piece, entry, within, [end - start for start, end in edges])
            if part.shape == box.shape:
                return part
            place = [slice(start - first, end - first) for (start, end), first in zip(edges, origin, strict=True)]
            box[tuple(place)] = part
        return box

    def _entry(self, name: str, master: bool) -> TensorEntry:
        return self._entries[f"{MASTER_WEIGHTS}{name}" if master else name]

    def _read(self, piece: Piece, entry: TensorEntry, origin: Sequence[int], shape: Sequence[int]) -> Tensor:
        """A part of a piece, all of which is checked when it is first touched."""
        path = self.folder / piece.file
        try:
            if piece.file not in self._files:
                self._files[piece.file] = TensorFile(path)
            file = self._files[piece.file]
            stored = file.tensors.get(piece.name)
            if stored is None or (stored.dtype, stored.shape) != (entry.dtype, piece.shape):
                raise BrokenFile(f"does not hold {piece.name} as it was written")
            part = file.read_box(piece.name, origin, shape)
            if piece not in self._sound:
                is_whole = tuple(shape) == piece.shape
                if (zlib.crc32(bytes_of(part)) if is_whole else file.checksum(piece.name)) != piece.crc32:
                    raise BrokenFile(f"is damaged: the bytes of {piece.name} are not those that were written")
                self._sound.add(piece)
        except BrokenFile as fault:
            raise UserError(f"{path} {fault}; name another checkpoint with --load-iteration.") from fault
        return part

    def _is_master(self, name: str, shape: tuple[int, ...]) -> bool:
        entry = self._entries.get(name)
        return entry is not None and (entry.dtype, entry.shape) == ("float32", shape) and entry.is_covered()

    def _faults(self, names: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
        for name, shape in names.items():
            entry = self._entries.get(name)
            if entry is None:
                yield f"{self.folder} has no tensor {name}, which a model of its own settings has."
            elif entry.shape != shape:
                yield f"{self.folder}: {name} is {list(entry.shape)}, and by its own settings {list(shape)}."
            elif not entry.is_covered():
                yield f"{self.folder} lacks a part of {name}; name another checkpoint with --load-iteration."
