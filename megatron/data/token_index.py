"""The .idx half of a token file: where sequences and documents begin, memory-mapped and never loaded whole.

Layout, little-endian, as Megatron-LM writes it: magic `MMIDIDX\\0\\0`, version uint64 = 1, dtype code uint8, number of
sequences q uint64, number of document boundaries d + 1 uint64, then sequence lengths int32 [q] (tokens), sequence
pointers int64 [q] (bytes into the .bin), document boundaries int64 [d + 1] (sequence numbers, from 0 to q) and, in
multimodal files, one mode byte a sequence, which is not read.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megatron.basics.errors import UserError

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
TOKEN_DTYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}
# The whole of a small index is checked; of a large one these many sequences, in blocks spread over the file, so that
# opening stays a matter of milliseconds.
CHECKED_SEQUENCES = 1 << 20
CHECKED_BLOCKS = 64
SUMMED_BYTES = 1 << 24


@dataclass(frozen=True, eq=False)
class TokenIndex:
    """What an .idx says. Arrays are views of the mapped file.

    dtype: of the tokens. num_sequences: q. num_documents: d. num_tokens: of the whole .bin.
    """

    path: Path
    dtype: np.dtype
    num_sequences: int
    num_documents: int
    num_tokens: int
    pointers: memoryview  # int64 [q]; a memoryview because the file leaves these fields unaligned, and numpy's own
    documents: memoryview  # int64 [d + 1]; binary search would copy an unaligned array whole at every call
    content: memoryview  # all bytes of the file

    def document_offset(self, document: int) -> int:
        """Position of a document's first token; for `num_documents` the end of the last document."""
        sequence = self.documents[document]
        return self.num_tokens if sequence == self.num_sequences else self.pointers[sequence] // self.dtype.itemsize

    def documents_between(self, first: int, end: int) -> range:
        """The documents in [first, end), two positions where documents begin or end. O(log d)."""
        boundaries = range(self.num_documents + 1)
        return range(
            bisect_left(boundaries, first, key=self.document_offset),
            bisect_left(boundaries, end, key=self.document_offset),
        )

    def document_lengths(self, documents: range) -> NDArray[np.int64]:
        """Tokens of each of some neighbouring documents: int64 [n], 0 for those without any."""
        boundaries = np.frombuffer(self.documents[documents.start : documents.stop + 1], np.int64)
        first, last = int(boundaries[0]), int(boundaries[-1])
        pointers = np.frombuffer(self.pointers[first : last + 1], np.int64)
        if last == self.num_sequences:
            pointers = np.append(pointers, self.num_tokens * self.dtype.itemsize)
        return np.diff(pointers[boundaries - first]) // self.dtype.itemsize

    def matches_crc32(self, checksum: int) -> bool:
        """Whether the file has this zlib.crc32; True unread for a file too large to sum while a run starts."""
        return len(self.content) > SUMMED_BYTES or zlib.crc32(self.content) == checksum

    def document_starts(self, first: int, end: int) -> NDArray[np.int64]:
        """Positions in [first, end) where a document begins: int64 [n], increasing, counted from `first`.

        O(log q + n). Documents without tokens begin nowhere of their own.
        """
        width = self.dtype.itemsize
        low = bisect_left(self.pointers, first * width)
        high = bisect_left(self.pointers, end * width, low)
        low_document = bisect_left(self.documents, low)
        high_document = bisect_left(self.documents, high, low_document)
        if high_document == low_document:
            return np.zeros(0, np.int64)
        sequences = np.frombuffer(self.documents[low_document:high_document], np.int64)
        pointers = np.frombuffer(self.pointers[low:high], np.int64)
        starts = pointers[sequences - low] // width - first
        repeated = starts[1:] == starts[:-1]
        return starts[np.append(True, ~repeated)] if repeated.any() else starts


def read_token_index(path: Path) -> TokenIndex:
    """Map an .idx file and check it.

    Raises UserError when the file is missing, cut short, not an index, or describes tokens that are not stored one
    after the other.
    """
    buffer = _mapped(path)
    if len(buffer) < HEADER.size or buffer[: len(MAGIC)] != MAGIC:
        raise UserError(f"{path} is not an index of tokens (it does not begin with MMIDIDX); {REMAKE}")
    _, version, code, num_sequences, num_boundaries = HEADER.unpack(buffer[: HEADER.size])
    if version != 1:
        raise UserError(f"{path} has index version {version}, only version 1 is known; {REMAKE}")
    if code not in TOKEN_DTYPES:
        raise UserError(f"{path} stores tokens of unknown type {code}, not whole numbers; {REMAKE}")
    size = HEADER.size + 12 * num_sequences + 8 * num_boundaries
    if len(buffer) not in (size, size + num_sequences):
        raise UserError(
            f"{path} is {len(buffer):,} bytes long, its header asks for {size:,}: it was cut short or overwritten; "
            f"{REMAKE}"
        )
    if not num_sequences or num_boundaries < 2:
        raise UserError(f"{path} lists no documents; {REMAKE}")
    return _checked_index(path, buffer, np.dtype(TOKEN_DTYPES[code]), num_sequences, num_boundaries)


REMAKE = "copy the pair of .bin and .idx again, or make it anew with tools/preprocess_data.py."


def _mapped(path: Path) -> memoryview:
    try:
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {REMAKE}") from None
    except ValueError:  # mmap's answer to an empty file
        raise UserError(f"{path} is empty; {REMAKE}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions and disk.") from error


def _checked_index(
    path: Path, buffer: memoryview, dtype: np.dtype, num_sequences: int, num_boundaries: int
) -> TokenIndex:
    lengths_end = HEADER.size + 4 * num_sequences
    pointers_end = lengths_end + 8 * num_sequences
    lengths = buffer[HEADER.size : lengths_end].cast("i")
    pointers = buffer[lengths_end:pointers_end].cast("q")
    documents = buffer[pointers_end : pointers_end + 8 * num_boundaries].cast("q")
    for block in _blocks(num_sequences):
        at = np.frombuffer(pointers[block], np.int64)
        length = np.frombuffer(lengths[block], np.int32).astype(np.int64)
        follows = at[1:] == at[:-1] + length[:-1] * dtype.itemsize
        if (length < 0).any() or not follows.all() or (block.start == 0 and at[0] != 0):
            raise UserError(f"{path} describes sequences that do not follow one another in the .bin; {REMAKE}")
    ordered = all((np.diff(np.frombuffer(documents[block], np.int64)) >= 0).all() for block in _blocks(num_boundaries))
    if not ordered or documents[0] != 0 or documents[num_boundaries - 1] != num_sequences:
        raise UserError(f"{path} describes documents that do not cover its {num_sequences:,} sequences; {REMAKE}")
    num_tokens = pointers[num_sequences - 1] // dtype.itemsize + lengths[num_sequences - 1]
    return TokenIndex(path, dtype, num_sequences, num_boundaries - 1, num_tokens, pointers, documents, buffer)


def _blocks(count: int) -> list[slice]:
    """Slices to check: all of [0, count) in one where that is small, else blocks from its beginning to its end."""
    if count <= CHECKED_SEQUENCES:
        return [slice(0, count)]
    width = CHECKED_SEQUENCES // CHECKED_BLOCKS
    begins = np.linspace(0, count - width, CHECKED_BLOCKS).astype(np.int64)
    return [slice(int(begin), int(begin) + width) for begin in begins]
