from __future__ import annotations

import gzip
import os
import stat
from pathlib import Path

import pytest
import zstandard

from megatron.basics.errors import UserError
from megatron.data.input_bytes import check_inputs, read_chunks, total_bytes

TEXT = b"".join(b"line %d of a text that packs well\n" % number for number in range(50_000))


def packed(kind: str, content: bytes) -> bytes:
    return {"plain": lambda data: data, "gzip": gzip.compress, "zstandard": zstandard.compress}[kind](content)


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstandard"])
def test_unpacked_whatever_the_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "corpus.bin"
    path.write_bytes(packed(kind, TEXT))
    counts: list[int] = []
    assert b"".join(read_chunks(str(path), counts.append)) == TEXT
    assert sum(counts) == path.stat().st_size == total_bytes([str(path)])


@pytest.mark.parametrize("kind", ["gzip", "zstandard"])
def test_several_frames_and_padding(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "parts"
    path.write_bytes(packed(kind, b"one ") + packed(kind, b"two ") + packed(kind, b"three") + b"\0" * 512)
    assert b"".join(read_chunks(str(path))) == b"one two three"


@pytest.mark.parametrize("kind", ["gzip", "zstandard"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_cut_file_is_no_whole_one(tmp_path: Path, kind: str, keep: float) -> None:
    path = tmp_path / "cut"
    content = packed(kind, TEXT)
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match="cut is packed, and ends in the middle"):
        list(read_chunks(str(path)))


@pytest.mark.parametrize("kind", ["gzip", "zstandard"])
def test_damaged_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad"
    content = bytearray(packed(kind, os.urandom(100_000)))
    content[8:40] = b"\xff" * 32
    path.write_bytes(content)
    with pytest.raises(UserError, match="bad is packed, and"):
        list(read_chunks(str(path)))


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert list(read_chunks(str(tmp_path / "empty"))) == []


def test_all_faults_of_the_paths_at_once(tmp_path: Path) -> None:
    (tmp_path / "good").touch()
    with pytest.raises(UserError) as caught:
        check_inputs([str(tmp_path / "good"), str(tmp_path / "missing"), str(tmp_path), "-", "-"])
    missing, folder, twice = caught.value.faults
    assert "missing cannot be read: No such file" in missing
    assert "is a folder" in folder
    assert "twice" in twice


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch(mode=stat.S_IWUSR)
    with pytest.raises(UserError, match="Permission denied"):
        check_inputs([str(path)])


def test_streams_have_no_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert total_bytes([str(tmp_path / "pipe")]) is None
    assert total_bytes(["-"]) is None
