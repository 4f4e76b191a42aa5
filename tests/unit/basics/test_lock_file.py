"""One owner at a time, named; no trace of a run that never began; an owner that dies holds nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.basics.errors import UserError
from megatron.basics.lock_file import LOCK_NAME, lock_folder

HOLD_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from megatron.basics.lock_file import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_second_owner_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()} on"), lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path):
        pass


def test_a_folder_made_for_the_lock_alone_goes(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK_NAME).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_or_was_used_stays(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path / "run"):
        (tmp_path / "run" / "run.json").touch()
    assert (tmp_path / "run" / "run.json").exists()


def test_a_killed_owner_holds_nothing(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None and owner.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {owner.pid} on"), lock_folder(tmp_path):
        pass
    owner.kill()
    owner.wait()
    with lock_folder(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK_NAME).read_text()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a part of its path is a file"), lock_folder(tmp_path / "file" / "run"):
        pass


def answer_with(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer_with(number, monkeypatch)
    with lock_folder(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / LOCK_NAME).read_text()
    (warning,) = caplog.messages
    assert f"{tmp_path / 'run'}: this file system has no locks" in warning
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_lock_of_another_node(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems say EACCES for a lock that is held elsewhere."""
    (tmp_path / LOCK_NAME).write_text("process 7 on node2\n")
    answer_with(number, monkeypatch)
    with pytest.raises(UserError, match="is being written by process 7 on node2"), lock_folder(tmp_path):
        pass
    assert (tmp_path / LOCK_NAME).read_text() == "process 7 on node2\n"


def test_another_fault_of_the_disk_is_not_an_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(errno.EIO, monkeypatch)
    with pytest.raises(UserError, match="input/output error"), lock_folder(tmp_path):
        pass
