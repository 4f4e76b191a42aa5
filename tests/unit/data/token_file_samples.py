"""Token files for tests, written byte by byte or by megatron-core itself."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

CODES = {np.uint8: 1, np.int8: 2, np.int16: 3, np.int32: 4, np.int64: 5, np.uint16: 8}


def write_token_file(
    prefix: Path, documents: Sequence[Sequence[Sequence[int]]], dtype: type[np.integer] = np.uint16
) -> list[int]:
    """Write documents, each a list of sequences of token ids; gives back all tokens."""
    sequences = [sequence for document in documents for sequence in document]
    tokens = [token for sequence in sequences for token in sequence]
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    pointers = (np.cumsum(lengths) - lengths) * np.dtype(dtype).itemsize
    boundaries = np.cumsum([0, *(len(document) for document in documents)])
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, CODES[dtype], len(sequences), len(boundaries))
    arrays = lengths.astype("<i4").tobytes() + pointers.astype("<i8").tobytes() + boundaries.astype("<i8").tobytes()
    Path(f"{prefix}.idx").write_bytes(header + arrays)
    Path(f"{prefix}.bin").write_bytes(np.array(tokens, dtype).tobytes())
    return tokens


def write_with_megatron_core(
    prefix: Path, documents: Sequence[Sequence[Sequence[int]]], dtype: type[np.integer] = np.uint16
) -> None:
    """The same by megatron-core's own builder."""
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for document in documents:
        for sequence in document:
            builder.add_item(torch.tensor(sequence, dtype=torch.int64))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")


def numbered_documents(lengths: Sequence[int], modulus: int = 60000) -> list[list[list[int]]]:
    """Documents of one sequence each, whose tokens count 0, 1, 2, ... through the file."""
    ends = np.cumsum(lengths)
    return [
        [[token % modulus for token in range(end - length, end)]] for length, end in zip(lengths, ends, strict=True)
    ]
