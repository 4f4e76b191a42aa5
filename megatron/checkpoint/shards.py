"""Tensors between memory and safetensors files: staging, writing, and reading any box of a global tensor."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor, is_main_replica
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from megatron.basics.atomic_files import current_umask, raise_for_disk
from megatron.basics.errors import UserError
from megatron.checkpoint.manifest import CorruptCheckpoint, Manifest, Piece, TensorEntry


@dataclass(frozen=True)
class StagedShard:
    """What one rank owns, copied to host memory so that training may go on: (global key, entry of one piece, data)."""

    pieces: list[tuple[str, TensorEntry, Tensor]]


def owned(tensors: Iterable[ShardedTensor]) -> list[ShardedTensor]:
    """Those that this rank writes: of the replicas of a tensor one is the main one."""
    return [tensor for tensor in tensors if is_main_replica(tensor.replica_id) and tensor.data is not None]


def stage(tensors: Iterable[ShardedTensor], file: str) -> StagedShard:
    """Copy the tensors that this rank is the owner of (the main replica) to host memory."""
    staged = []
    for tensor in owned(tensors):
        assert tensor.prepend_axis_num == 0, "layers are stored under their own names"
        name = f"{tensor.key}@{','.join(map(str, tensor.global_offset))}"
        piece = Piece(file, name, tuple(tensor.global_offset), tuple(tensor.local_shape), crc32=0)
        dtype = str(tensor.dtype).removeprefix("torch.")
        # A copy even on CPU: the optimizer goes on changing the original, and views would drag whole buffers along.
        data = tensor.data.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        staged.append((tensor.key, TensorEntry(dtype, tuple(tensor.global_shape), (piece,)), data))
    return StagedShard(staged)


def write_shard(shard: StagedShard, folder: Path, file: str) -> tuple[dict[str, TensorEntry], dict[str, int]]:
    """Write one rank's pieces and make them durable: ({key: entry with checksums}, {file: bytes}).

    Raises UserError when the disk is full or forbids it.
    """
    if not shard.pieces:
        return {}, {}
    path = folder / file
    entries: dict[str, TensorEntry] = {}
    for key, entry, data in shard.pieces:
        (piece,) = entry.pieces
        piece = replace(piece, crc32=checksum(data))
        others = entries[key].pieces if key in entries else ()
        entries[key] = replace(entry, pieces=(*others, piece))
    try:
        save_file({entry.pieces[0].name: data for _, entry, data in shard.pieces}, path)
        os.chmod(path, 0o666 & ~current_umask())  # safetensors makes files private
        with open(path, "rb+") as written:
            os.fsync(written.fileno())
    except OSError as error:
        raise_for_disk(error, path)
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))  # all that is left of the system's answer
        if number is None:
            raise UserError(f"{path} could not be written: {error}; free some space and start again.") from error
        raise_for_disk(OSError(int(number[1]), str(error)), path)
    return entries, {file: path.stat().st_size}


def checksum(data: Tensor) -> int:
    """CRC-32 of the bytes of a contiguous host tensor."""
    return zlib.crc32(data.reshape(-1).view(torch.uint8).numpy().data)


class ShardReader:
    """Reads boxes of global tensors from a checkpoint; every piece it touches is checked against its checksum."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._open_files: dict[str, Any] = {}
        self._last_read: tuple[Piece, Tensor] | None = None

    def fill(self, wanted: ShardedTensor) -> Tensor:
        """The local tensor that `wanted` describes, in its dtype, on the host.

        Raises UserError when the checkpoint has no such tensor or one of another shape: it belongs to another model.
        """
        entry = self.manifest.tensors.get(wanted.key)
        if entry is None:
            raise UserError(
                f"{self.folder} has no tensor {wanted.key}: it belongs to another model; pass the run's own "
                "model flags."
            )
        if entry.shape != tuple(wanted.global_shape):
            raise UserError(
                f"{self.folder}: {wanted.key} is {list(entry.shape)} there and {list(wanted.global_shape)} in this "
                "model; pass the run's own model and tokenizer flags."
            )
        if not entry.is_covered():
            raise CorruptCheckpoint(f"{self.folder} lacks a part of {wanted.key}")
        local = torch.empty(wanted.local_shape, dtype=wanted.dtype)
        for piece in entry.pieces:
            boxes = [
                (max(a, b), min(a + m, b + n))
                for a, m, b, n in zip(wanted.global_offset, wanted.local_shape, piece.offset, piece.shape, strict=True)
            ]
            if any(start >= end for start, end in boxes):
                continue
            target = tuple(slice(s - o, e - o) for (s, e), o in zip(boxes, wanted.global_offset, strict=True))
            source = tuple(slice(s - o, e - o) for (s, e), o in zip(boxes, piece.offset, strict=True))
            local[target] = self._read(piece, entry)[source]
        return local

    def _read(self, piece: Piece, entry: TensorEntry) -> Tensor:
        """The whole piece, checked; the last one is kept, since neighbouring boxes often share it."""
        if self._last_read is not None and self._last_read[0] == piece:
            return self._last_read[1]
        self._last_read = None  # never two of them in memory
        path = self.folder / piece.file
        try:
            if piece.file not in self._open_files:
                self._open_files[piece.file] = safe_open(path, framework="pt")
            data = self._open_files[piece.file].get_tensor(piece.name)
        except (SafetensorError, OSError) as error:
            raise CorruptCheckpoint(f"{path} is damaged at {piece.name}: {error}") from error
        if tuple(data.shape) != piece.shape or str(data.dtype) != f"torch.{entry.dtype}":
            raise CorruptCheckpoint(f"{path} is damaged: {piece.name} has another shape or dtype than was written")
        if checksum(data) != piece.crc32:
            raise CorruptCheckpoint(f"{path} is damaged: the bytes of {piece.name} are not those that were written")
        self._last_read = (piece, data)
        return data
