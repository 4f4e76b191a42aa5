from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.data.documents import Document, Fault, documents_of
from megatron.data.text_input import TextBlock

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(texts=st.lists(TEXT), ascii_only=st.booleans())
def test_json_texts_come_back(texts: list[str], ascii_only: bool) -> None:
    lines = "\n".join(json.dumps({"id": 1, "text": text}, ensure_ascii=ascii_only) for text in texts)
    block = TextBlock("in", "jsonl", 5, lines.encode())
    assert list(documents_of(block, ["text"])) == [Document(5 + row, (text,)) for row, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', "not JSON (Unterminated string"),
        (b"words", "not JSON (Expecting value"),
        (b'{"text": "a"} {"text": "b"}', "not JSON (Extra data"),
        (b'["text"]', "not a JSON object"),
        (b"[" * 100_000, "JSON that is nested too deeply"),
        (b'{"Text": "x"}', 'no key "text"'),
        (b'{"text": null}', '"text" is not a string'),
        (b'{"text": 7}', '"text" is not a string'),
        (b'{"text": "caf\xe9"}', "not UTF-8 (byte 13)"),
        (b'{"text": "a\\u0000b"}', "holds a NUL character"),
        (b'{"text": "a\0b"}', "not JSON (Invalid control character"),
        (b"\0" * 30, "not JSON"),
        (b'{"text": "a\\ud800b"}', "holds a lone surrogate"),
    ],
)
def test_unusable_lines_are_named_and_passed_over(line: bytes, reason: str) -> None:
    content = b"\n".join([b'{"text": "before"}', b"", line, b"  ", b'{"text": "after"}', b""])
    before, fault, after = documents_of(TextBlock("dir/in.jsonl", "jsonl", 1, content), ["text"])
    assert (before, after) == (Document(1, ("before",)), Document(5, ("after",)))
    assert isinstance(fault, Fault)
    assert str(fault).startswith(f"dir/in.jsonl:3: {reason}")


def test_every_key_must_be_there() -> None:
    block = TextBlock("in", "jsonl", 1, b'{"a": "x", "b": "y"}\n{"a": "x"}')
    both, fault = documents_of(block, ["b", "a"])
    assert both == Document(1, ("y", "x"))
    assert str(fault) == 'in:2: no key "b"'


def test_surrogate_pairs_of_json_are_text() -> None:
    (document,) = documents_of(TextBlock("in", "jsonl", 1, rb'{"text": "\ud83d\ude00"}'), ["text"])
    assert document == Document(1, ("😀",))


@pytest.mark.parametrize(
    ("form", "texts"),
    [
        ("file", [(1, "a\n  b\n\n \nc")]),
        ("paragraph", [(1, "a\n  b"), (5, "c")]),
        ("line", [(1, "a"), (2, "  b"), (5, "c")]),
    ],
)
@pytest.mark.parametrize("line_break", [b"\n", b"\r\n"])
def test_plain_text(form: str, texts: list[tuple[int, str]], line_break: bytes) -> None:
    content = b"a\n  b\n\n \nc\n\n".replace(b"\n", line_break)
    expected = [Document(line, (text,)) for line, text in texts]
    assert list(documents_of(TextBlock("in", form, 1, content), ["text"])) == expected


def test_damaged_plain_text_is_never_half_there() -> None:
    content = b"good\n\nfirst line\nba\xffd line\n\nnul\0\n\nlast"
    good, bad, nul, last = documents_of(TextBlock("in", "paragraph", 1, content), ["text"])
    assert (good, last) == (Document(1, ("good",)), Document(8, ("last",)))
    assert [str(bad), str(nul)] == ["in:3: not UTF-8 (byte 13)", "in:6: holds a NUL character"]
