from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.basics.errors import UserError
from megatron.data import text_input
from megatron.data.documents import Fault, documents_of
from megatron.data.preprocess_options import TextInputOptions
from megatron.data.text_input import TextBlock, read_blocks, read_inputs


def chunks_of(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


def blocks_of(form: str, content: bytes, chunk: int, block: int, largest: int = 2**30) -> list[TextBlock]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_input, "BLOCK_BYTES", block)
        patch.setattr(text_input, "LARGEST_DOCUMENT_BYTES", largest)
        return list(text_input._cut("in", form, chunks_of(content, chunk)))


def found_in(blocks: list[TextBlock]) -> tuple[list[str], list[Fault]]:
    found = [documents_of(block, ["text"]) for block in blocks]
    texts = [text for documents in found for text in documents.columns[0]]
    return texts, [fault for documents in found for fault in documents.faults]


TEXT = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\n\n", b"\r\n", b" \n", b" ", b"\n\r\n"]), max_size=60).map(
    b"".join
)
SIZES = st.integers(1, 20)


@given(content=TEXT, chunk=SIZES, block=SIZES, form=st.sampled_from(["jsonl", "line", "paragraph", "file"]))
def test_blocks_join_to_the_file_and_know_their_lines(content: bytes, chunk: int, block: int, form: str) -> None:
    blocks = blocks_of(form, content, chunk, block)
    assert b"".join(part.data for part in blocks) == content
    before = b""
    for part in blocks:
        assert part.first_line == before.count(b"\n") + 1
        before += part.data


@given(content=TEXT, chunk=SIZES, block=SIZES, form=st.sampled_from(["line", "paragraph", "file"]))
def test_documents_do_not_depend_on_the_cuts(content: bytes, chunk: int, block: int, form: str) -> None:
    whole = found_in([TextBlock("in", form, 1, content)] if content else [])
    assert found_in(blocks_of(form, content, chunk, block)) == whole


@given(content=TEXT)
def test_paragraphs_by_a_regular_expression(content: bytes) -> None:
    text = content.decode().replace("\r\n", "\n")
    parts = [part.strip("\n") for part in re.split(r"\n[ ]*(?=\n)", f"\n{text}\n")]
    expected = [part for part in parts if part.strip()]
    texts, _ = found_in([TextBlock("in", "paragraph", 1, content)])
    assert [text.strip("\n") for text in texts] == expected


@pytest.mark.parametrize("form", ["line", "paragraph"])
@pytest.mark.parametrize("chunk", [1, 3, 8, 1000])
def test_too_long_documents_are_left_out_alone(form: str, chunk: int) -> None:
    gap = {"line": b"\n", "paragraph": b"\n\n"}[form]
    texts = [b"one", b"two", b"x" * 300, b"three", b"four", b"y" * 400]
    found, faults = found_in(blocks_of(form, gap.join(texts), chunk, block=8, largest=100))
    assert [text for text in found if len(text) < 100] == ["one", "two", "three", "four"]
    if chunk < 100:  # a chunk that holds the whole document needs no more memory
        assert len(found) == 4
        assert [(fault.line - 1) // len(gap) for fault in faults] == [2, 5]
        assert all("longer than 1 GiB" in fault.reason for fault in faults)


def test_too_long_file(tmp_path: Path) -> None:
    texts, (fault,) = found_in(blocks_of("file", b"x\n" * 1000, chunk=10, block=8, largest=100))
    assert texts == [] and "--text-documents paragraph or line" in fault.reason


@pytest.mark.parametrize(
    ("name", "content", "input_format", "form"),
    [
        ("a.jsonl", "plain", "auto", "jsonl"),
        ("a.json.gz", "plain", "auto", "jsonl"),
        ("a.NDJSON.zst", "plain", "auto", "jsonl"),
        ("a.txt", "{", "auto", "paragraph"),
        ("a.md.gz", "{", "auto", "paragraph"),
        ("a", ' \n{"text": "x"}', "auto", "jsonl"),
        ("a", '\ufeff{"text": "x"}', "auto", "jsonl"),
        ("a.dump", "plain", "auto", "paragraph"),
        ("a.txt", "plain", "jsonl", "jsonl"),
        ("a.jsonl", "plain", "text", "paragraph"),
    ],
)
def test_form_of_a_file(tmp_path: Path, name: str, content: str, input_format: str, form: str) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    (block,) = read_blocks(str(tmp_path / name), input_format, "paragraph")
    assert block.form == form
    assert not block.data.startswith(b"\xef\xbb\xbf")


def test_several_keys_need_json(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(UserError, match=r"--json-keys a b cannot be found in .*a\.txt: it is plain text"):
        list(read_inputs(TextInputOptions(input=[str(tmp_path / "a.txt")], json_keys=["a", "b"])))


def test_files_follow_one_another(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jsonl").write_text(json.dumps({"text": str(number)}))
    paths = [str(tmp_path / f"{number}.jsonl") for number in (2, 0, 1)]
    assert found_in(list(read_inputs(TextInputOptions(input=paths)))) == (["2", "0", "1"], [])
