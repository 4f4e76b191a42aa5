"""Writes Megatron's token files: PREFIX.bin, PREFIX.idx, and PREFIX.json with what is known of them.

PREFIX.bin holds the ids of all documents, one after another. PREFIX.idx, little endian (the format of megatron-core's
indexed_dataset.py, one sequence for each document):

    9 bytes   b"MMIDIDX" and two zeros
    uint64    1, the version
    uint8     8 for uint16 ids, 4 for int32 ids
    uint64    n, number of sequences
    uint64    n + 1, number of document boundaries
    int32     [n] tokens of each sequence
    int64     [n] byte in the .bin where each sequence begins
    int64     [n + 1] number of the sequence at which each document begins; the last is n
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from megatron.basics.atomic_files import atomic_writer
from megatron.data.token_file_facts import BLOCK_BYTES, TokenFileFacts, facts_path
from megatron.tokenization.tokenizer import Tokenizer

INDEX_MAGIC = b"MMIDIDX\x00\x00"
INDEX_VERSION = 1
DTYPE_CODES = {np.dtype(np.uint16): 8, np.dtype(np.int32): 4}
SMALL_VOCABULARY = 65500  # below it Megatron stores uint16
ENTRIES_AT_ONCE = 2**20


def token_dtype(vocabulary_size: int) -> np.dtype[np.uint16] | np.dtype[np.int32]:
    """The dtype that Megatron gives the ids of a vocabulary."""
    return np.dtype(np.uint16) if vocabulary_size < SMALL_VOCABULARY else np.dtype(np.int32)


class TokenFileWriter:
    """Takes documents in order, through `token_file_writer` alone."""

    def __init__(self, bin_file: IO[bytes], index_file: IO[bytes], dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self.tokens = self.documents = 0
        self.largest_token_id = -1
        self.facts: TokenFileFacts | None = None  # known once sealed
        self._bin_file, self._index_file = bin_file, index_file
        self._lengths: list[NDArray[np.int32]] = []
        self._bin_bytes = 0
        self._block_crc32: list[int] = []
        self._index_crc32 = 0

    def append(self, tokens: NDArray[np.integer], lengths: NDArray[np.int32]) -> None:
        """Add documents. tokens: ids of all of them, of the file's dtype; lengths: int32, their sum is len(tokens)."""
        assert tokens.dtype == self.dtype and lengths.dtype == np.int32 and int(lengths.sum()) == len(tokens)
        if not len(lengths):
            return
        content = np.ascontiguousarray(tokens).data.cast("B")
        self._bin_file.write(content)
        self._add_checksum(content)
        self._lengths.append(lengths)
        self.tokens += len(tokens)
        self.documents += len(lengths)
        self.largest_token_id = max(self.largest_token_id, int(tokens.max()) if len(tokens) else -1)

    def seal(self, tokenizer: Tokenizer, eod_id: int | None) -> TokenFileFacts:
        """Write the index and push all bytes to the disk, where it may turn out to be full.

        eod_id: the id that ends every document, if one does.
        """
        for part in self._index_parts():
            self._index_file.write(part)
            self._index_crc32 = zlib.crc32(part, self._index_crc32)
        for file in (self._bin_file, self._index_file):
            file.flush()
            os.fsync(file.fileno())
        self.facts = TokenFileFacts(
            tokenizer_type=tokenizer.tokenizer_type,
            tokenizer_fingerprint=tokenizer.fingerprint,
            vocabulary_size=tokenizer.vocabulary_size,
            largest_token_id=self.largest_token_id,
            eod_id=eod_id,
            documents=self.documents,
            tokens=self.tokens,
            bin_bytes=self._bin_bytes,
            block_bytes=BLOCK_BYTES,
            block_crc32=tuple(self._block_crc32),
            idx_crc32=self._index_crc32,
        )
        return self.facts

    def _add_checksum(self, content: memoryview) -> None:
        while len(content):
            used = self._bin_bytes % BLOCK_BYTES
            if used == 0:
                self._block_crc32.append(0)
            part = content[: BLOCK_BYTES - used]
            self._block_crc32[-1] = zlib.crc32(part, self._block_crc32[-1])
            self._bin_bytes += len(part)
            content = content[len(part) :]

    def _index_parts(self) -> Iterator[bytes]:
        yield INDEX_MAGIC
        yield struct.pack("<QBQQ", INDEX_VERSION, DTYPE_CODES[self.dtype], self.documents, self.documents + 1)
        for lengths in self._lengths:
            yield lengths.astype("<i4", copy=False).tobytes()
        begin = 0
        for lengths in self._lengths:
            ends = begin + np.cumsum(lengths, dtype=np.int64) * self.dtype.itemsize
            yield np.concatenate([[begin], ends[:-1]]).astype("<i8", copy=False).tobytes()
            begin = int(ends[-1])
        for first in range(0, self.documents + 1, ENTRIES_AT_ONCE):
            yield np.arange(first, min(first + ENTRIES_AT_ONCE, self.documents + 1), dtype="<i8").tobytes()


@contextlib.contextmanager
def token_file_writer(prefix: str, dtype: DTypeLike) -> Iterator[TokenFileWriter]:
    """A writer whose files stand at PREFIX, the .idx last, when the block ends well; it must be sealed by then.

    When the block fails nothing of this writing is there, and files of an earlier one stay. Raises UserError when the
    disk is full.
    """
    bin_path, index_path = Path(f"{prefix}.bin"), Path(f"{prefix}.idx")
    with atomic_writer(index_path) as index_file:
        with atomic_writer(bin_path) as bin_file:
            writer = TokenFileWriter(bin_file, index_file, dtype)
            yield writer
            assert writer.facts is not None, "seal() was not called"
            index_path.unlink(missing_ok=True)  # between the renames there is no token file rather than a mixed one
            facts_path(prefix).unlink(missing_ok=True)
        try:
            writer.facts.write(prefix)
        except BaseException:
            bin_path.unlink(missing_ok=True)
            raise
