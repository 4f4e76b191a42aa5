"""Input files as a stream of blocks that hold whole documents, so that any number of workers can share them.

Forms of input:
    jsonl      each line is a JSON object with the text under a key
    file       a file is one document
    paragraph  documents are parted by lines without text
    line       each line with text is a document
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from megatron.basics.errors import UserError
from megatron.data.input_bytes import read_chunks
from megatron.data.preprocess_options import TextInputOptions

JSON_ENDINGS = (".jsonl", ".json", ".ndjson")
TEXT_ENDINGS = (".txt", ".text", ".md", ".rst")
PACKED_ENDINGS = (".gz", ".zst")

BLOCK_BYTES = 2**20  # handing out a block costs half a millisecond, encoding it about sixty
LARGEST_DOCUMENT_BYTES = 2**30  # a token stands for a byte at least, so the int32 lengths of an .idx hold any document
BOUNDARIES: dict[str, tuple[bytes, ...]] = {
    "jsonl": (b"\n",),
    "line": (b"\n",),
    "paragraph": (b"\n\n", b"\n\r\n"),
    "file": (),
}
LONGEST_BOUNDARY = 3
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, eq=False)
class TextBlock:
    """Whole documents of one file, as bytes.

    source: the path as given. first_line: number of its first line in the file, from 1. form: jsonl, file, paragraph
    or line. too_long: the document that begins here passed LARGEST_DOCUMENT_BYTES and `data` is empty.
    """

    source: str
    form: str
    first_line: int
    data: bytes
    too_long: bool = False


def read_inputs(options: TextInputOptions, on_read: Callable[[int], None] = lambda count: None) -> Iterator[TextBlock]:
    """The blocks of all input files, one file after another.

    `on_read` is told how many bytes were taken from the disk each time. Raises UserError for a file that cannot be read
    or is damaged, and for several keys that meet plain text.
    """
    for path in options.input:
        yield from read_input(path, options, on_read)


def read_input(path: str, options: TextInputOptions, on_read: Callable[[int], None]) -> Iterator[TextBlock]:
    """The blocks of one input file, as `read_inputs` gives them."""
    for block in read_blocks(path, options.input_format, options.text_documents, on_read):
        check_keys(path, block.form, options)
        yield block


def check_keys(path: str, form: str, options: TextInputOptions) -> None:
    """Raises UserError for several keys that meet plain text."""
    if form != "jsonl" and len(options.json_keys) > 1:
        raise UserError(f"--json-keys {' '.join(options.json_keys)} cannot be found in {path}: it is plain text.")


def read_blocks(
    path: str, input_format: str, text_documents: str, on_read: Callable[[int], None] = lambda count: None
) -> Iterator[TextBlock]:
    """Blocks of about BLOCK_BYTES, more where a single document is longer. Raises UserError as `read_chunks` does."""
    chunks = read_chunks(path, on_read)
    first = next(chunks, b"")
    form = form_of(path, first, input_format, text_documents)
    return _cut(path, form, itertools.chain([first.removeprefix(BYTE_ORDER_MARK)], chunks))


def form_of(path: str, start: bytes, input_format: str, text_documents: str) -> str:
    """The form of a file that starts so; auto is what --input-format says of it."""
    if input_format == "auto":
        name = PurePath(path).name.lower()
        for ending in PACKED_ENDINGS:
            name = name.removesuffix(ending)
        if name.endswith(JSON_ENDINGS):
            input_format = "jsonl"
        elif name.endswith(TEXT_ENDINGS):
            input_format = "text"
        else:
            input_format = "jsonl" if start.removeprefix(BYTE_ORDER_MARK).lstrip()[:1] == b"{" else "text"
    return "jsonl" if input_format == "jsonl" else text_documents


def _cut(source: str, form: str, chunks: Iterator[bytes]) -> Iterator[TextBlock]:
    buffer = bytearray()
    line = 1  # of the first byte in the buffer
    searched = 0  # bytes of the buffer without a boundary
    too_long_since: int | None = None  # line on which a document began whose bytes are being passed over

    def take(count: int) -> bytes:
        nonlocal line, searched
        taken = bytes(buffer[:count])
        del buffer[:count]
        line += taken.count(b"\n")
        searched = len(buffer)
        return taken

    for chunk in chunks:
        buffer += chunk
        if too_long_since is not None:
            end = _first_boundary(form, buffer)
            take(end or len(buffer) - LONGEST_BOUNDARY + 1)
            if not end:
                continue
            yield TextBlock(source, form, too_long_since, b"", too_long=True)
            too_long_since, searched = None, 0
        if len(buffer) < BLOCK_BYTES:
            continue
        first_line, end = line, _last_boundary(form, buffer, searched if searched >= BLOCK_BYTES else 0)
        if end:
            yield TextBlock(source, form, first_line, take(end))
        elif len(buffer) > LARGEST_DOCUMENT_BYTES:
            too_long_since = first_line
        else:
            searched = len(buffer)
    if too_long_since is not None:
        yield TextBlock(source, form, too_long_since, b"", too_long=True)
    elif buffer:
        yield TextBlock(source, form, line, bytes(buffer))


def _first_boundary(form: str, buffer: bytearray) -> int:
    """Where the first document ends, or 0 when no end is there."""
    ends = [position + len(mark) for mark in BOUNDARIES[form] if (position := buffer.find(mark)) >= 0]
    return min(ends, default=0)


def _last_boundary(form: str, buffer: bytearray, start: int) -> int:
    """Where the last whole document ends, or 0 when none ends behind `start`."""
    start = max(0, start - LONGEST_BOUNDARY + 1)
    ends = [position + len(mark) for mark in BOUNDARIES[form] if (position := buffer.rfind(mark, start)) >= 0]
    return max(ends, default=0)
