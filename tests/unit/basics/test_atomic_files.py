"""Either the old file or the whole new one, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron.basics.atomic_files import atomic_writer, raise_for_disk, write_json
from megatron.basics.errors import UserError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_new_content_appears_whole_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "file.txt"
    with atomic_writer(target, "w") as file:
        file.write("é\n")
        assert not target.exists()
    assert target.read_bytes() == "é\n".encode()
    assert names(target.parent) == ["file.txt"]


def test_an_error_in_the_block_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    with pytest.raises(KeyError), atomic_writer(target) as file:
        file.write(b"new")
        raise KeyError("of the caller")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["file.bin"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "run.json", {"a": [1, None]})
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run.json").stat().st_mode) == 0o640
    assert json.loads((tmp_path / "run.json").read_text()) == {"a": [1, None]}


@pytest.mark.parametrize("call", ["fsync", "replace", "fdopen"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(UserError, match=r"file could not be written: the disk is full; free some space"):
        write_json(tmp_path / "file", {})
    monkeypatch.undo()
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


LIMITED = """
import resource, signal, sys
from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with atomic_writer(sys.argv[1]) as file:
        for _ in range(100):
            file.write(b"x" * 10_000)
except UserError as error:
    print(error)
"""


def test_a_write_that_the_system_refuses_half_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "file")], capture_output=True, text=True, check=True
    )
    assert "file could not be written: the file is larger than" in ended.stdout
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG])
def test_what_a_person_can_mend_is_a_user_error(number: int) -> None:
    with pytest.raises(UserError, match=r"^/x could not be written: .*; .*\.$"):
        raise_for_disk(OSError(number, "no"), "/x")


def test_what_a_person_cannot_mend_stays_as_it_is() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        raise_for_disk(OSError(errno.EBADF, "Bad file descriptor"), "/x")


WRITER = """
import itertools, json, sys
from megatron.basics.atomic_files import write_json
print("started", flush=True)
for number in itertools.count(1):
    write_json(sys.argv[1], [number] * 20_000)
"""


def test_killed_while_writing_the_file_is_whole(tmp_path: Path) -> None:
    random.seed(1)
    target = tmp_path / "file.json"
    write_json(target, [0] * 20_000)
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE)
        assert writer.stdout is not None and writer.stdout.readline() == b"started\n"
        time.sleep(random.uniform(0.0, 0.1))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        content = json.loads(target.read_text())
        assert len(content) == 20_000 and len(set(content)) == 1
