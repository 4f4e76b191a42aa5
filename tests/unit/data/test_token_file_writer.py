from __future__ import annotations

import errno
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.basics.errors import UserError
from megatron.data import token_file_facts, token_file_writer
from megatron.data.token_file_facts import TokenFileFacts
from megatron.data.token_file_writer import token_dtype
from megatron.tokenization.tokenizer import Tokenizer


def tokenizer_of(vocabulary_size: int) -> Tokenizer:
    known = {"tokenizer_type": "SentencePieceTokenizer", "fingerprint": "f" * 64, "vocabulary_size": vocabulary_size}
    return cast(Tokenizer, SimpleNamespace(**known))


def write(prefix: Path, batches: list[list[list[int]]], vocabulary_size: int) -> TokenFileFacts:
    dtype = token_dtype(vocabulary_size)
    with token_file_writer.token_file_writer(str(prefix), dtype) as writer:
        for documents in batches:
            tokens = np.array([token for document in documents for token in document], dtype=dtype)
            writer.append(tokens, np.array([len(document) for document in documents], dtype=np.int32))
        return writer.seal(tokenizer_of(vocabulary_size), eod_id=None)


def write_with_megatron_core(prefix: Path, batches: list[list[list[int]]], vocabulary_size: int) -> None:
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(vocabulary_size))
    for documents in batches:
        for document in documents:
            builder.add_document(torch.tensor(document, dtype=torch.int64), [len(document)])
    builder.finalize(f"{prefix}.idx")


BATCHES = st.lists(st.lists(st.lists(st.integers(0, 65_498), min_size=1, max_size=5), max_size=5), max_size=5)


@settings(max_examples=50, deadline=None)
@given(batches=BATCHES, vocabulary_size=st.sampled_from([65_499, 65_500, 250_000]), entries=st.integers(1, 5))
def test_same_bytes_as_megatron_core(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[list[int]]], vocabulary_size: int, entries: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_file_writer, "ENTRIES_AT_ONCE", entries)
        write(folder / "ours", batches, vocabulary_size)
    write_with_megatron_core(folder / "theirs", batches, vocabulary_size)
    assert (folder / "ours.bin").read_bytes() == (folder / "theirs.bin").read_bytes()
    assert (folder / "ours.idx").read_bytes() == (folder / "theirs.idx").read_bytes()


def test_megatron_core_reads_it(tmp_path: Path) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    batches = [[[1, 2, 3], [4]], [[70_000, 0]]]
    write(tmp_path / "t", batches, 100_000)
    dataset = IndexedDataset(str(tmp_path / "t"))
    assert [list(dataset[row]) for row in range(len(dataset))] == [document for batch in batches for document in batch]
    assert list(dataset.document_indices) == [0, 1, 2, 3]


@given(batches=BATCHES, block_bytes=st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_facts(tmp_path_factory: pytest.TempPathFactory, batches: list[list[list[int]]], block_bytes: int) -> None:
    prefix = tmp_path_factory.mktemp("facts") / "t"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_file_writer, "BLOCK_BYTES", block_bytes)
        facts = write(prefix, batches, 65_499)
    documents = [document for batch in batches for document in batch]
    content = Path(f"{prefix}.bin").read_bytes()
    assert TokenFileFacts.read(prefix) == facts
    assert facts == TokenFileFacts(
        tokenizer_type="SentencePieceTokenizer",
        tokenizer_fingerprint="f" * 64,
        vocabulary_size=65_499,
        largest_token_id=max((token for document in documents for token in document), default=-1),
        eod_id=None,
        documents=len(documents),
        tokens=sum(map(len, documents)),
        bin_bytes=len(content),
        block_bytes=block_bytes,
        block_crc32=tuple(zlib.crc32(content[at : at + block_bytes]) for at in range(0, len(content), block_bytes)),
        idx_crc32=zlib.crc32(Path(f"{prefix}.idx").read_bytes()),
    )


def test_failure_leaves_the_earlier_files(tmp_path: Path) -> None:
    write(tmp_path / "t", [[[1, 2]]], 100)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        pytest.raises(ZeroDivisionError),
        token_file_writer.token_file_writer(str(tmp_path / "t"), np.uint16) as writer,
    ):
        writer.append(np.array([3], dtype=np.uint16), np.array([1], dtype=np.int32))
        writer.seal(tokenizer_of(100), None)
        raise ZeroDivisionError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("earlier", [False, True])
def test_disk_that_fills_at_the_very_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool) -> None:
    """Then the earlier files are gone already: no .idx may stand beside a .bin that is not its own."""
    if earlier:
        write(tmp_path / "t", [[[1, 2, 3]]], 100)

    def full(*arguments: Any) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(token_file_facts, "write_json", full)
    with pytest.raises(UserError, match="the disk is full"):
        write(tmp_path / "t", [[[1, 2]]], 100)
    assert list(tmp_path.iterdir()) == []


def test_disk_that_fills_in_between(tmp_path: Path) -> None:
    told = pytest.raises(UserError, match=r"t\.bin could not be written: the disk is full")
    with told, token_file_writer.token_file_writer(str(tmp_path / "t"), np.uint16):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_facts_of_no_file_and_of_a_broken_one(tmp_path: Path) -> None:
    assert TokenFileFacts.read(tmp_path / "t") is None
    write(tmp_path / "t", [[[1]]], 100)
    path = tmp_path / "t.json"
    good = path.read_text()
    for bad in ["", "[]", "{}", good.replace('"format": 1', '"format": 2'), good.replace("100", '"x"'), good[:50]]:
        path.write_text(bad)
        with pytest.raises(UserError, match=r"t\.json does not describe a token file"):
            TokenFileFacts.read(tmp_path / "t")
