from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.data.documents import Documents, Fault, documents_of
from megatron.data.text_input import TextBlock

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(texts=st.lists(TEXT), ascii_only=st.booleans())
def test_json_texts_come_back(texts: list[str], ascii_only: bool) -> None:
    lines = "\n".join(json.dumps({"id": 1, "text": text}, ensure_ascii=ascii_only) for text in texts)
    block = TextBlock("in", "jsonl", 5, lines.encode())
    assert documents_of(block, ["text"]) == Documents((texts,))


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
    found = documents_of(TextBlock("dir/in.jsonl", "jsonl", 1, content), ["text"])
    assert found.columns == (["before", "after"],)
    (fault,) = found.faults
    assert str(fault).startswith(f"dir/in.jsonl:3: {reason}")


def test_every_key_must_be_there() -> None:
    block = TextBlock("in", "jsonl", 1, b'{"a": "x", "b": "y"}\n{"a": "x"}')
    found = documents_of(block, ["b", "a"])
    assert found == Documents((["y"], ["x"]), [Fault("in", 2, 'no key "b"')])


def test_a_nul_elsewhere_does_no_harm() -> None:
    block = TextBlock("in", "jsonl", 1, rb'{"text": "good", "other": "\u0000"}')
    assert documents_of(block, ["text"]) == Documents((["good"],))


def test_json_that_only_the_slower_parser_takes() -> None:
    block = TextBlock("in", "jsonl", 1, b'{"score": NaN, "text": "good"}')
    assert documents_of(block, ["text"]) == Documents((["good"],))


def test_surrogate_pairs_of_json_are_text() -> None:
    block = TextBlock("in", "jsonl", 1, rb'{"text": "\ud83d\ude00"}')
    assert documents_of(block, ["text"]) == Documents((["😀"],))


@pytest.mark.parametrize(
    ("form", "texts"),
    [
        ("file", ["a\n  b\n\n \nc"]),
        ("paragraph", ["a\n  b", "c"]),
        ("line", ["a", "  b", "c"]),
    ],
)
@pytest.mark.parametrize("line_break", [b"\n", b"\r\n"])
def test_plain_text(form: str, texts: list[str], line_break: bytes) -> None:
    content = b"a\n  b\n\n \nc\n\n".replace(b"\n", line_break)
    assert documents_of(TextBlock("in", form, 1, content), ["text"]) == Documents((texts,))


def test_damaged_plain_text_is_never_half_there() -> None:
    content = b"good\n\nfirst line\nba\xffd line\n\nnul\0\n\nlast"
    found = documents_of(TextBlock("in", "paragraph", 1, content), ["text"])
    assert found.columns == (["good", "last"],)
    assert [str(fault) for fault in found.faults] == ["in:3: not UTF-8 (byte 13)", "in:6: holds a NUL character"]
