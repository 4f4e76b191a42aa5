"""Text blocks to token ids: the work of one worker."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron.data.documents import Fault, documents_of
from megatron.data.file_ranges import FileRange
from megatron.data.text_input import TextBlock
from megatron.data.token_file_writer import token_dtype
from megatron.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class EncodedBlock:
    """The documents of a block as ids, and what was left out.

    tokens: for each key the ids of all documents, one after another. lengths: for each key int32 [documents]; the
    documents of all keys are the same ones. text_bytes, lines: how much text the block held. range_start: where in its
    file a range began; the line numbers of its faults count from the range, because nobody has read what is before it.
    """

    tokens: tuple[NDArray[np.integer], ...]
    lengths: tuple[NDArray[np.int32], ...]
    faults: tuple[Fault, ...]
    empty_documents: int
    text_bytes: int
    lines: int
    range_start: int | None


@dataclass(frozen=True)
class BlockEncoder:
    """Encodes blocks, each in the thread that calls.

    keys: of JSON objects; plain text counts as the only key. eod_id: put behind each document, if any.
    """

    tokenizer: Tokenizer
    keys: Sequence[str]
    eod_id: int | None

    def __call__(self, work: TextBlock | FileRange) -> EncodedBlock:
        """The documents of a block, or of a range of a file, as ids.

        A document without a single token under one of the keys is empty and left out under all of them, so that the
        n-th documents of all keys belong together.
        """
        blocks = work.load() if isinstance(work, FileRange) else [work]
        found = [documents_of(block, self.keys) for block in blocks]
        columns = [
            self.tokenizer.encode_batch([text for documents in found for text in documents.columns[column]])
            for column in range(len(self.keys))
        ]
        lengths = [np.fromiter(map(len, column), dtype=np.int32, count=len(column)) for column in columns]
        kept = np.all(np.stack(lengths) > 0, axis=0)
        if not kept.all():
            columns = [list(itertools.compress(column, kept)) for column in columns]
            lengths = [column[kept] for column in lengths]
        joined = [self._join(rows, row_lengths) for rows, row_lengths in zip(columns, lengths, strict=True)]
        return EncodedBlock(
            tokens=tuple(tokens for tokens, _ in joined),
            lengths=tuple(row_lengths for _, row_lengths in joined),
            faults=tuple(fault for documents in found for fault in documents.faults),
            empty_documents=len(kept) - int(kept.sum()),
            text_bytes=sum(len(block.data) for block in blocks),
            lines=sum(block.data.count(b"\n") + block.too_long for block in blocks),
            range_start=work.start if isinstance(work, FileRange) else None,
        )

    def _join(
        self, rows: list[NDArray[np.int32]], lengths: NDArray[np.int32]
    ) -> tuple[NDArray[np.integer], NDArray[np.int32]]:
        """All rows as one array of the file's dtype, each with its end, and their lengths."""
        if self.eod_id is not None:
            with_ends = [np.array([self.eod_id], dtype=np.int32)] * (2 * len(rows))
            with_ends[::2] = rows
            rows, lengths = with_ends, lengths + np.int32(1)
        # unsafe: from int32 to uint16, which token_dtype chose because it holds every id of the vocabulary
        tokens = np.empty(int(lengths.sum()), token_dtype(self.tokenizer.vocabulary_size))
        if rows:
            np.concatenate(rows, out=tokens, casting="unsafe")
        return tokens, lengths


class LineNumbers:
    """Counts lines through the ranges of a file; takes all encoded blocks in order."""

    def __init__(self) -> None:
        self._lines_before = 0

    def in_file(self, block: EncodedBlock) -> list[Fault]:
        """The faults of the next block, with the line numbers of their file."""
        if block.range_start is None:
            return list(block.faults)
        if block.range_start == 0:
            self._lines_before = 0
        faults = [dataclasses.replace(fault, line=fault.line + self._lines_before) for fault in block.faults]
        self._lines_before += block.lines
        return faults
