"""Token files: what megatron-core writes loads, what is damaged is refused by one sentence."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_file_samples import write_token_file, write_with_megatron_core

from megatron.basics.errors import UserError
from megatron.data.token_file import open_token_file
from megatron.data.token_file_facts import TokenFileFacts

DOCUMENTS = [[[5, 6, 7], [8]], [[9, 10]], [[], [11]], [], [[]], [[12, 13, 14, 15]]]
documents_of_sequences = st.lists(
    st.lists(st.lists(st.integers(0, 99), max_size=6), max_size=3), min_size=1, max_size=8
).filter(lambda documents: any(token is not None for d in documents for s in d for token in s))


def refusal(prefix: Path, **arguments: object) -> str:
    """The one sentence that a bad file is answered with."""
    with pytest.raises(UserError) as caught:
        file = open_token_file(str(prefix), **arguments)  # type: ignore[arg-type]
        file.read(0, file.index.num_tokens)
    (sentence,) = caught.value.faults
    assert prefix.name in sentence and sentence.endswith(".") and "\n" not in sentence
    return sentence


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_megatron_core_files_load_with_equal_tokens(tmp_path: Path, dtype: type[np.integer]) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    write_with_megatron_core(tmp_path / "corpus", DOCUMENTS, dtype)
    file = open_token_file(str(tmp_path / "corpus"))
    theirs = IndexedDataset(str(tmp_path / "corpus"))
    assert (
        file.read(0, file.index.num_tokens).tolist() == np.concatenate([theirs[i] for i in range(len(theirs))]).tolist()
    )
    assert file.index.num_documents == len(theirs.document_indices) - 1 == len(DOCUMENTS)
    assert file.read(2, 5).dtype == np.int32


def test_the_two_writers_of_these_tests_agree(tmp_path: Path) -> None:
    write_with_megatron_core(tmp_path / "a", DOCUMENTS)
    write_token_file(tmp_path / "b", DOCUMENTS)
    assert (tmp_path / "a.idx").read_bytes() == (tmp_path / "b.idx").read_bytes()
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


@settings(max_examples=60, deadline=None)
@given(documents=documents_of_sequences, data=st.data())
def test_document_starts_equal_a_scan(tmp_path_factory: pytest.TempPathFactory, documents, data) -> None:
    prefix = tmp_path_factory.mktemp("starts") / "corpus"
    tokens = write_token_file(prefix, documents)
    index = open_token_file(str(prefix)).index
    first = data.draw(st.integers(0, len(tokens)))
    end = data.draw(st.integers(first, len(tokens)))
    begins, at = set(), 0
    for document in documents:
        begins.add(at)
        at += sum(len(sequence) for sequence in document)
    expected = sorted(begin - first for begin in begins if first <= begin < end)
    assert index.document_starts(first, end).tolist() == expected
    assert [index.document_offset(d) for d in range(len(documents) + 1)] == [
        sum(len(s) for document in documents[:d] for s in document) for d in range(len(documents) + 1)
    ]


@pytest.mark.parametrize("missing", [".bin", ".idx"])
def test_a_missing_half_is_named(tmp_path: Path, missing: str) -> None:
    write_token_file(tmp_path / "corpus", DOCUMENTS)
    (tmp_path / f"corpus{missing}").unlink()
    assert f"corpus{missing} is missing" in refusal(tmp_path / "corpus")


def test_an_index_cut_anywhere_is_refused(tmp_path: Path) -> None:
    write_token_file(tmp_path / "corpus", DOCUMENTS)
    whole = (tmp_path / "corpus.idx").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "corpus.idx").write_bytes(whole[:length])
        assert "corpus.idx" in refusal(tmp_path / "corpus")


def test_a_bin_cut_or_grown_is_refused(tmp_path: Path) -> None:
    write_token_file(tmp_path / "corpus", DOCUMENTS)
    whole = (tmp_path / "corpus.bin").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "corpus.bin").write_bytes(whole[:length])
        assert "cut short" in refusal(tmp_path / "corpus")
    (tmp_path / "corpus.bin").write_bytes(whole + b"\0\0")
    assert "do not belong together" in refusal(tmp_path / "corpus")


@pytest.mark.parametrize(
    ("position", "value", "words"),
    [
        (0, b"T", "not an index"),
        (9, b"\2", "version 2"),
        (17, b"\6", "unknown type 6"),
        (17, b"\4", "do not follow one another"),  # tokens of four bytes instead of two
        (18, struct.pack("<Q", 0), "cut short or overwritten"),
        (34, struct.pack("<i", 2), "do not follow one another"),
        (34, struct.pack("<i", -3), "do not follow one another"),
    ],
)
def test_an_overwritten_index_is_refused(tmp_path: Path, position: int, value: bytes, words: str) -> None:
    write_token_file(tmp_path / "corpus", DOCUMENTS)
    content = bytearray((tmp_path / "corpus.idx").read_bytes())
    content[position : position + len(value)] = value
    (tmp_path / "corpus.idx").write_bytes(content)
    assert words in refusal(tmp_path / "corpus")


def test_documents_that_do_not_cover_the_file_are_refused(tmp_path: Path) -> None:
    write_token_file(tmp_path / "corpus", DOCUMENTS)
    content = (tmp_path / "corpus.idx").read_bytes()
    (tmp_path / "corpus.idx").write_bytes(content[:-8] + struct.pack("<q", 3))
    assert "do not cover" in refusal(tmp_path / "corpus")


def test_files_without_tokens_are_refused(tmp_path: Path) -> None:
    write_token_file(tmp_path / "corpus", [[[]]])
    assert "holds no tokens" in refusal(tmp_path / "corpus")
    write_token_file(tmp_path / "corpus", [])
    assert "no documents" in refusal(tmp_path / "corpus")


@pytest.mark.parametrize(("token", "dtype"), [(100, np.uint16), (-1, np.int32), (2**31, np.int64), (100, np.uint8)])
def test_ids_outside_of_the_vocabulary_are_named_with_their_position(
    tmp_path: Path, token: int, dtype: type[np.integer]
) -> None:
    write_token_file(tmp_path / "corpus", [[[1, 2, 99]], [[3, token, 4]]], dtype)
    file = open_token_file(str(tmp_path / "corpus"), vocabulary_size=100)
    assert file.read(0, 4).tolist() == [1, 2, 99, 3]
    with pytest.raises(UserError, match=re.escape(f"token id {token} at position 4")):
        file.read(2, 6)


def test_ids_that_int32_cannot_hold_are_refused_without_a_vocabulary(tmp_path: Path) -> None:
    write_token_file(tmp_path / "corpus", [[[1, 2**31]]], np.int64)
    assert "position 1" in refusal(tmp_path / "corpus")


def facts_of(prefix: Path, **changes: object) -> TokenFileFacts:
    content, index = Path(f"{prefix}.bin").read_bytes(), Path(f"{prefix}.idx").read_bytes()
    facts: dict = {
        "tokenizer_type": "SentencePieceTokenizer",
        "tokenizer_fingerprint": "f" * 64,
        "vocabulary_size": 100,
        "largest_token_id": 15,
        "eod_id": None,
        "documents": len(DOCUMENTS),
        "tokens": len(content) // 2,
        "bin_bytes": len(content),
        "block_bytes": 1 << 26,
        "block_crc32": (zlib.crc32(content),),
        "idx_crc32": zlib.crc32(index),
    }
    return TokenFileFacts(**{**facts, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokenizer_fingerprint": "0" * 64}, "made by another tokenizer"),
        ({"largest_token_id": 99, "vocabulary_size": 100}, "outside of the vocabulary of 50"),
        ({"tokens": 3}, "describes another"),
        ({"idx_crc32": 1}, "describes another"),
    ],
)
def test_facts_of_another_tokenizer_or_file_are_refused(tmp_path: Path, changes: dict, words: str) -> None:
    write_token_file(tmp_path / "corpus", DOCUMENTS)
    facts_of(tmp_path / "corpus", **changes).write(tmp_path / "corpus")
    assert words in refusal(tmp_path / "corpus", vocabulary_size=50, tokenizer_fingerprint="f" * 64)


def test_a_file_whose_facts_fit_opens(tmp_path: Path) -> None:
    tokens = write_token_file(tmp_path / "corpus", DOCUMENTS)
    facts_of(tmp_path / "corpus").write(tmp_path / "corpus")
    file = open_token_file(str(tmp_path / "corpus"), vocabulary_size=50, tokenizer_fingerprint="f" * 64)
    assert file.read(0, len(tokens)).tolist() == tokens


def test_more_tokens_than_31_bits_count_without_overflow(tmp_path: Path) -> None:
    """Sparse files stand for a corpus of 5 x 10^9 tokens in three sequences, longer than 2^31 tokens in all."""
    lengths = np.array([2_000_000_000, 2_000_000_000, 1_000_000_000], np.int64)
    pointers = (np.cumsum(lengths) - lengths) * 2
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 3, 3)
    arrays = lengths.astype("<i4").tobytes() + pointers.tobytes() + np.array([0, 2, 3], "<i8").tobytes()
    (tmp_path / "corpus.idx").write_bytes(header + arrays)
    with open(tmp_path / "corpus.bin", "wb") as file:
        file.truncate(10_000_000_000)
        file.seek(2 * 4_000_000_001)
        file.write(struct.pack("<H", 77))
    corpus = open_token_file(str(tmp_path / "corpus"))
    assert corpus.index.num_tokens == 5_000_000_000
    assert corpus.read(4_000_000_000, 4_000_000_003).tolist() == [0, 77, 0]
    assert corpus.index.document_starts(3_999_999_990, 4_000_000_100).tolist() == [10]
