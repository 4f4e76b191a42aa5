"""The documents of a block of text, and the lines that hold none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from megatron.data.text_input import TextBlock


class Unusable(ValueError):
    """Why a line or document is left out; the message begins the sentence `FILE:LINE: ...`."""


@dataclass(frozen=True)
class Fault:
    """A document that was left out: where it begins and why."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Document:
    """The texts of one document, one for each key, and the line that it begins on."""

    line: int
    texts: tuple[str, ...]


def documents_of(block: TextBlock, keys: Sequence[str]) -> Iterator[Document | Fault]:
    """Documents in file order; a fault stands where a document was left out. A document is never half there.

    JSONL: the string under each of `keys`; lines of nothing but white space are passed over. Plain text has one text;
    CR LF becomes LF, and line breaks at the end of a document go. Left out: what is not UTF-8, not JSON, has no string
    under a key, is longer than 1 GiB, or holds a NUL or a lone surrogate, which are traces of damaged files.
    """
    if block.too_long:
        hint = "" if block.form == "jsonl" else "; --text-documents paragraph or line cuts it into documents"
        yield Fault(block.source, block.first_line, f"the document is longer than 1 GiB{hint}")
        return
    for line, raw in _raw_documents(block):
        try:
            yield Document(line, _texts_of_json(raw, keys) if block.form == "jsonl" else (_plain_text(raw),))
        except Unusable as unusable:
            yield Fault(block.source, line, str(unusable))


def _raw_documents(block: TextBlock) -> Iterator[tuple[int, bytes]]:
    """Line number and bytes of each document."""
    if block.form == "file":
        yield block.first_line, block.data
        return
    lines = enumerate(block.data.split(b"\n"), start=block.first_line)
    if block.form != "paragraph":
        yield from ((number, line) for number, line in lines if line and not line.isspace())
        return
    paragraph: list[bytes] = []
    begin = block.first_line
    for number, line in lines:
        if line and not line.isspace():
            begin = begin if paragraph else number
            paragraph.append(line)
        elif paragraph:
            yield begin, b"\n".join(paragraph)
            paragraph = []
    if paragraph:
        yield begin, b"\n".join(paragraph)


def _plain_text(raw: bytes) -> str:
    return _without_nul(_decoded(raw).replace("\r\n", "\n").rstrip("\r\n"))


def _texts_of_json(raw: bytes, keys: Sequence[str]) -> tuple[str, ...]:
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError:
        content = _patiently_parsed(raw, keys)
    if not isinstance(content, dict):
        raise Unusable("not a JSON object")
    return tuple(_without_nul(_text_under(content, key)) for key in keys)


def _patiently_parsed(raw: bytes, keys: Sequence[str]) -> object:
    """What Python's slower parser makes of a line: it takes NaN, and says what is wrong with the others."""
    line = _decoded(raw)
    try:
        content = json.loads(line)
    except ValueError as error:
        raise Unusable(f"not JSON ({error})") from error
    except RecursionError as error:
        raise Unusable("JSON that is nested too deeply") from error
    for text in (content.get(key) for key in keys) if isinstance(content, dict) else ():
        if isinstance(text, str):
            _check_unicode(text)
    return content


def _text_under(content: dict[str, object], key: str) -> str:
    if key not in content:
        raise Unusable(f'no key "{key}"')
    text = content[key]
    if not isinstance(text, str):
        raise Unusable(f'"{key}" is not a string')
    return text


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unusable(f"not UTF-8 (byte {error.start})") from error


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Unusable("holds a lone surrogate") from error


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise Unusable("holds a NUL character")
    return text
