from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.basics.errors import UserError
from megatron.data import text_input
from megatron.data.documents import documents_of
from megatron.data.file_ranges import FileRange, ranges_of, read_work
from megatron.data.preprocess_options import TextInputOptions
from megatron.data.text_input import TextBlock

TEXT = st.lists(st.sampled_from([b"a", b"bcd", b"\n", b"\r\n", b" "]), max_size=60).map(b"".join)


@given(content=TEXT, step=st.integers(1, 30))
def test_tiles_give_each_line_once(tmp_path_factory: pytest.TempPathFactory, content: bytes, step: int) -> None:
    path = tmp_path_factory.mktemp("tiles") / "in"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_input, "BLOCK_BYTES", step)
        ranges = ranges_of(str(path), "text", "line")
    assert ranges is not None
    parts = [block.data for part in ranges for block in part.load() if block.data]
    assert b"".join(parts) == content
    assert all(part.endswith(b"\n") for part in parts[:-1])


def test_too_long_line_is_left_out_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_input, "LARGEST_DOCUMENT_BYTES", 1000)
    path = tmp_path / "in"
    path.write_bytes(b"one\ntwo\n" + b"x" * 5000 + b"\nthree\n")
    first, rest = FileRange(str(path), "line", 0, 100), FileRange(str(path), "line", 100, 5015)
    good, bad = first.load()
    assert (good.data, good.first_line) == (b"one\ntwo\n", 1)
    assert (bad.data, bad.first_line, bad.too_long) == (b"", 3, True)
    assert [block.data for block in rest.load()] == [b"three\n"]
    (fault,) = documents_of(bad, ["text"]).faults
    assert (fault.line, "longer than 1 GiB" in fault.reason) == (3, True)


def test_what_is_not_read_in_ranges(tmp_path: Path) -> None:
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress(b"{}"))
    (tmp_path / "text.txt").write_text("words")
    os.mkfifo(tmp_path / "pipe")
    assert ranges_of("-", "jsonl", "file") is None
    assert ranges_of(str(tmp_path / "packed.jsonl"), "auto", "file") is None
    assert ranges_of(str(tmp_path / "text.txt"), "auto", "file") is None
    assert ranges_of(str(tmp_path / "text.txt"), "auto", "paragraph") is None
    work = list(read_work(TextInputOptions(input=[str(tmp_path / "text.txt")]), lambda count: None))
    assert [type(item) for item in work] == [TextBlock]


def test_file_that_goes_away(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="in cannot be read: No such file"):
        FileRange(str(tmp_path / "in"), "jsonl", 0, 5).load()


def test_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n')
    (block,) = FileRange(str(tmp_path / "in.jsonl"), "jsonl", 0, 17).load()
    assert block.data == b'{"text": "a"}\n'
