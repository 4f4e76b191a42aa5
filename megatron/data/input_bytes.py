"""The bytes of an input file or of standard input, unpacked: plain, gzip or Zstandard, told by their first bytes."""

from __future__ import annotations

import io
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import zstandard

from megatron.basics.errors import UserError

STANDARD_INPUT = "-"
GZIP_MAGIC = b"\x1f\x8b"
ZSTANDARD_MAGIC = b"\x28\xb5\x2f\xfd"
CHUNK_BYTES = 256 * 1024
PACKED_CHUNK_BYTES = 32 * 1024  # text unpacks to about ten times that


def check_inputs(paths: Sequence[str]) -> None:
    """Raises UserError with one sentence for each path that cannot be read as a stream."""
    faults = [fault for path in paths if path != STANDARD_INPUT for fault in _path_faults(path)]
    if list(paths).count(STANDARD_INPUT) > 1:
        faults.append("--input - stands there twice; standard input can be read once.")
    if faults:
        raise UserError(*faults)


def total_bytes(paths: Sequence[str]) -> int | None:
    """Bytes of all files as they lie on disk; None when one is a stream without a known end."""
    sizes = [_file_size(path) for path in paths]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def is_packed(start: bytes) -> bool:
    """Whether a file that starts so is a gzip or Zstandard archive."""
    return start.startswith((GZIP_MAGIC, ZSTANDARD_MAGIC))


def read_chunks(path: str, on_read: Callable[[int], None] = lambda count: None) -> Iterator[bytes]:
    """Unpacked bytes of a file in chunks; `on_read` is told how many bytes were taken from the disk each time.

    Raises UserError when the file cannot be read, or is packed and damaged or cut short.
    """
    try:
        with _open(path) as stream:
            magic = stream.peek(4)[:4]
            if magic.startswith(GZIP_MAGIC):
                yield from _unpack(path, stream, lambda: zlib.decompressobj(wbits=31), on_read)
            elif magic == ZSTANDARD_MAGIC:
                yield from _unpack(path, stream, lambda: zstandard.ZstdDecompressor().decompressobj(), on_read)
            else:
                while chunk := stream.read(CHUNK_BYTES):
                    on_read(len(chunk))
                    yield chunk
    except OSError as error:
        raise UserError(f"--input {path} cannot be read: {error.strerror or error}.") from error
    except (zlib.error, zstandard.ZstdError) as error:
        raise UserError(f"--input {path} is packed, and damaged: {error}.") from error


def _unpack(
    path: str, stream: IO[bytes], new_decoder: Callable[[], Any], on_read: Callable[[int], None]
) -> Iterator[bytes]:
    """Unpack one frame after another; both libraries would take a cut file for a whole one."""
    decoder: Any = None
    while chunk := stream.read(PACKED_CHUNK_BYTES):
        on_read(len(chunk))
        while chunk:
            decoder = decoder or new_decoder()
            unpacked = decoder.decompress(chunk)
            if unpacked:
                yield unpacked
            chunk = b""
            if decoder.eof:
                chunk = decoder.unused_data.lstrip(b"\0")  # tapes and some tools pad files with zeros
                decoder = None
    if decoder is not None:
        raise UserError(f"--input {path} is packed, and ends in the middle; copy or download it again.")


def _open(path: str) -> io.BufferedReader:
    file = io.FileIO(sys.stdin.fileno(), closefd=False) if path == STANDARD_INPUT else io.FileIO(path)
    return io.BufferedReader(file, CHUNK_BYTES)


def _path_faults(path: str) -> Iterator[str]:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        yield f"--input {path} cannot be read: {error.strerror}."
        return
    if stat.S_ISDIR(mode):
        yield f"--input {path} is a folder; name the files in it."
    elif not os.access(path, os.R_OK):
        yield f"--input {path} cannot be read: Permission denied."


def _file_size(path: str) -> int | None:
    if path == STANDARD_INPUT:
        return None
    status = os.stat(path)
    return status.st_size if stat.S_ISREG(status.st_mode) else None
