"""The index of a checkpoint folder, written last: what is not in a sound manifest does not exist.

A checkpoint is a folder iter_NNNNNNN of safetensors shards, one for each rank that owned something, and manifest.json.
The manifest names every global tensor, the pieces that make it up with their CRC-32, the size of every file, and the
scalar contents; it carries a CRC-32 of itself. No file is a pickle.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError
from megatron.checkpoint.contents import Contents

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"


class CorruptCheckpoint(Exception):
    """One sentence that names the file, and the tensor where there is one; an older checkpoint may still be sound."""


@dataclass(frozen=True)
class Piece:
    """A box of a global tensor: its place in the whole, the file and name it stands under, and its checksum."""

    file: str
    name: str
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    crc32: int


@dataclass(frozen=True)
class TensorEntry:
    """A global tensor: dtype as torch prints it without `torch.`, whole shape, and the pieces that cover it."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    def is_covered(self) -> bool:
        """Whether the pieces hold as many elements as the whole; they never overlap, each has one owner."""
        return sum(math.prod(piece.shape) for piece in self.pieces) == math.prod(self.shape)


@dataclass(frozen=True)
class Manifest:
    """Everything but the numbers themselves."""

    tensors: dict[str, TensorEntry]
    files: dict[str, int]
    contents: Contents

    def write(self, folder: Path) -> None:
        """Write manifest.json, atomically."""
        body = {
            "format_version": FORMAT_VERSION,
            "files": self.files,
            "tensors": {
                key: {
                    "dtype": entry.dtype,
                    "shape": entry.shape,
                    "pieces": [[p.file, p.name, p.offset, p.shape, p.crc32] for p in entry.pieces],
                }
                for key, entry in sorted(self.tensors.items())
            },
            "contents": self.contents.as_dict(),
        }
        content = {"format_version": FORMAT_VERSION, "crc32": _checksum(body), "body": body}
        with atomic_writer(folder / MANIFEST_NAME, "w") as file:
            json.dump(content, file, separators=(",", ":"))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint whose files are all there with the right sizes.

    Raises CorruptCheckpoint with one sentence otherwise, and UserError when a program of another version wrote it.
    """
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_bytes())
        version, checksum, body = content["format_version"], content["crc32"], content["body"]
    except FileNotFoundError as error:
        raise CorruptCheckpoint(f"{path} is missing: the checkpoint was never finished") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptCheckpoint(f"{path} cannot be read: {error}") from error
    if version != FORMAT_VERSION:
        # The body says it again under the checksum (or says nothing): a flipped bit is no other version.
        if _checksum(body) == checksum and body.get("format_version", FORMAT_VERSION) == FORMAT_VERSION:
            raise CorruptCheckpoint(f"{path} is damaged: it says format version {version} and was written as another")
        raise UserError(
            f"{path} has format version {version} and this program reads version {FORMAT_VERSION}: use the version of "
            "the program that wrote it, or start from another run folder."
        )
    if _checksum(body) != checksum:
        raise CorruptCheckpoint(f"{path} is damaged: its checksum does not fit its content")
    manifest = Manifest(
        tensors={key: _tensor_entry(entry) for key, entry in body["tensors"].items()},
        files=body["files"],
        contents=Contents.from_dict(body["contents"], str(path)),
    )
    for name, size in manifest.files.items():
        _check_file(folder, name, size)
    return manifest


def _tensor_entry(entry: dict[str, Any]) -> TensorEntry:
    pieces = [Piece(file, name, tuple(o), tuple(s), crc32) for file, name, o, s, crc32 in entry["pieces"]]
    return TensorEntry(entry["dtype"], tuple(entry["shape"]), tuple(pieces))


def _check_file(folder: Path, name: str, size: int) -> None:
    if Path(name).name != name:
        raise CorruptCheckpoint(f"{folder / MANIFEST_NAME} names a file outside of its folder: {name}")
    path = folder / name
    if not path.is_file():
        raise CorruptCheckpoint(f"{path} is missing")
    if path.stat().st_size != size:
        raise CorruptCheckpoint(f"{path} has {path.stat().st_size} bytes, {size} were written")


def _checksum(body: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
