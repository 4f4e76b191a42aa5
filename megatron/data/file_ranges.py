"""Ranges of plain files that workers read by themselves: nothing is copied through the process that hands out work.

A line belongs to the range in which it begins, so any ranges that tile a file give each line to exactly one worker.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from megatron.basics.errors import UserError
from megatron.data import text_input
from megatron.data.input_bytes import CHUNK_BYTES, STANDARD_INPUT, is_packed
from megatron.data.preprocess_options import TextInputOptions
from megatron.data.text_input import BYTE_ORDER_MARK, TextBlock, check_keys, form_of, read_input

LINE_FORMS = ("jsonl", "line")


@dataclass(frozen=True)
class FileRange:
    """The lines of a file that begin in its bytes [start, end)."""

    source: str
    form: str
    start: int
    end: int

    def load(self) -> list[TextBlock]:
        """The lines as a block whose numbers count from the first of them; a second block for one that is too long.

        Raises UserError when the file cannot be read.
        """
        try:
            with open(self.source, "rb") as file:
                data, too_long = self._read(file)
        except OSError as error:
            raise UserError(f"--input {self.source} cannot be read: {error.strerror or error}.") from error
        blocks = [TextBlock(self.source, self.form, 1, data)]
        if too_long:
            blocks.append(TextBlock(self.source, self.form, data.count(b"\n") + 1, b"", too_long=True))
        return blocks

    def _read(self, file: io.BufferedReader) -> tuple[bytes, bool]:
        """The bytes of the lines, and whether a line too long to take follows them."""
        first = max(0, self.start - 1)  # a line begins behind a line break, be it the byte before the range
        file.seek(first)
        data = file.read(self.end - first)
        begin = data.find(b"\n") + 1 if self.start else 0
        if self.start and (begin == 0 or first + begin >= self.end):
            return b"", False
        if not self.start and data.startswith(BYTE_ORDER_MARK):
            begin = len(BYTE_ORDER_MARK)
        parts: list[bytes | memoryview] = [memoryview(data)[begin:]]
        size, last = len(data) - begin, data
        while not last.endswith(b"\n") and (last := file.readline(CHUNK_BYTES)):
            parts.append(last)
            size += len(last)
            if size > text_input.LARGEST_DOCUMENT_BYTES:
                return data[begin : max(begin, data.rfind(b"\n") + 1)], True
        return b"".join(parts), False


def ranges_of(path: str, input_format: str, text_documents: str) -> Iterator[FileRange] | None:
    """Ranges that tile a plain file of lines; None for streams, packed files and forms whose documents span lines.

    Raises UserError when the file cannot be read.
    """
    if path == STANDARD_INPUT:
        return None
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return None
            start = file.peek(CHUNK_BYTES)
    except OSError as error:
        raise UserError(f"--input {path} cannot be read: {error.strerror or error}.") from error
    form = form_of(path, start, input_format, text_documents)
    if is_packed(start) or form not in LINE_FORMS:
        return None
    return (FileRange(path, form, begin, end) for begin, end in _tiles(status.st_size))


def read_work(options: TextInputOptions, on_read: Callable[[int], None]) -> Iterator[TextBlock | FileRange]:
    """All input files in order: as ranges where workers can read them, else as blocks. Raises as `read_inputs` does."""
    for path in options.input:
        ranges = ranges_of(path, options.input_format, options.text_documents)
        if ranges is None:
            yield from read_input(path, options, on_read)
            continue
        for part in ranges:
            check_keys(path, part.form, options)
            on_read(part.end - part.start)
            yield part


def _tiles(size: int) -> Iterator[tuple[int, int]]:
    step = text_input.BLOCK_BYTES
    return ((begin, min(begin + step, size)) for begin in range(0, size, step))
