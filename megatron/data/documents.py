"""The documents of a block of text, and the lines that hold none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import orjson

from megatron.data.text_input import TextBlock


class Unusable(ValueError):
    """Why a line or document is left out; the message ends the sentence `FILE:LINE: ...`."""


@dataclass(frozen=True)
class Fault:
    """A document that was left out: where it begins and why."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.reason}"


@dataclass
class Documents:
    """columns[c][d]: text of document d under key c. faults: what was left out, in file order."""

    columns: tuple[list[str], ...]
    faults: list[Fault] = field(default_factory=list)


def documents_of(block: TextBlock, keys: Sequence[str]) -> Documents:
    """The documents of a block in file order. A document is never half there.

    JSONL: the string under each of `keys`; lines of nothing but white space are passed over. Plain text has one text;
    CR LF becomes LF, and line breaks at the end of a document go. Left out: what is not UTF-8, not JSON, has no string
    under a key, is longer than 1 GiB, or holds a NUL or a lone surrogate, which are traces of damaged files.
    """
    found = Documents(tuple([] for _ in keys))
    if block.too_long:
        hint = "" if block.form == "jsonl" else "; --text-documents paragraph or line cuts it into documents"
        found.faults.append(Fault(block.source, block.first_line, f"the document is longer than 1 GiB{hint}"))
    elif block.form == "jsonl":
        _add_json_lines(found, block, keys)
    else:
        for line, raw in _plain_documents(block):
            try:
                found.columns[0].append(_plain_text(raw))
            except Unusable as unusable:
                found.faults.append(Fault(block.source, line, str(unusable)))
    return found


def _add_json_lines(found: Documents, block: TextBlock, keys: Sequence[str]) -> None:
    """Take good lines on the shortest way, for this loop runs once a document; look closely at all others."""
    for line, raw in enumerate(_lines(block.data), start=block.first_line):
        try:
            content = orjson.loads(raw)
            texts = [content[key] for key in keys]
            good = all(type(text) is str and "\0" not in text for text in texts)
        except (ValueError, LookupError, TypeError):
            good = False
        if not good:
            if not raw or bytes(raw).isspace():
                continue
            try:
                texts = _texts_of_json(bytes(raw), keys)
            except Unusable as unusable:
                found.faults.append(Fault(block.source, line, str(unusable)))
                continue
        for column, text in zip(found.columns, texts, strict=True):
            column.append(text)


def _lines(data: bytes) -> Iterator[memoryview]:
    """The lines of `data` without their ends, as views: `split` would copy all of the text."""
    view, begin = memoryview(data), 0
    while begin < len(data):
        end = data.find(b"\n", begin)
        end = len(data) if end < 0 else end
        yield view[begin:end]
        begin = end + 1


def _texts_of_json(raw: bytes, keys: Sequence[str]) -> list[str]:
    """What Python's slower parser makes of a line: it takes NaN, and says what is wrong with others."""
    line = _decoded(raw)
    try:
        content = json.loads(line)
    except ValueError as error:
        raise Unusable(f"not JSON ({error})") from error
    except RecursionError as error:
        raise Unusable("JSON that is nested too deeply") from error
    if not isinstance(content, dict):
        raise Unusable("not a JSON object")
    return [_checked(_text_under(content, key)) for key in keys]


def _text_under(content: dict[str, object], key: str) -> str:
    if key not in content:
        raise Unusable(f'no key "{key}"')
    text = content[key]
    if not isinstance(text, str):
        raise Unusable(f'"{key}" is not a string')
    return text


def _plain_documents(block: TextBlock) -> Iterator[tuple[int, bytes]]:
    """Line number and bytes of each document of plain text."""
    if block.form == "file":
        yield block.first_line, block.data
        return
    lines = enumerate(block.data.split(b"\n"), start=block.first_line)
    if block.form == "line":
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
    return _checked(_decoded(raw).replace("\r\n", "\n").rstrip("\r\n"))


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unusable(f"not UTF-8 (byte {error.start})") from error


def _checked(text: str) -> str:
    if "\0" in text:
        raise Unusable("holds a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Unusable("holds a lone surrogate") from error
    return text
