"""A folder appears whole or not at all, and nothing of anybody else is lost."""

import os

import pytest

from megatron.basics.errors import UserError
from megatron.basics.lock_file import LOCK_NAME, lock_folder
from megatron.conversion import new_folder as module
from megatron.conversion.new_folder import new_folder, require_space


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("exists", [False, True])
def test_it_appears_whole(exists, tmp_path):
    target = tmp_path / "a" / "b"
    if exists:
        target.mkdir(parents=True)
    with new_folder(target) as work:
        (work / "inner").mkdir()
        (work / "inner" / "file").write_text("x")
        assert not target.exists() or names(target) == []
    assert names(target) == ["inner"] and names(tmp_path / "a") == ["b"]
    assert (target / "inner" / "file").read_text() == "x"


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, UserError])
def test_it_is_gone_when_something_goes_wrong(fault, tmp_path):
    with pytest.raises(fault), new_folder(tmp_path / "b") as work:
        (work / "inner").mkdir()
        (work / "inner" / "file").write_text("x")
        raise fault("no")
    assert names(tmp_path) == []


def test_a_full_disk_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="the disk is full"), new_folder(tmp_path / "b"):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []


def test_what_is_there_stays(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    for name, sentence in (("full", "is not empty; choose another folder"), ("file", "is a file; choose the name")):
        with pytest.raises(UserError, match=sentence), new_folder(tmp_path / name):
            pytest.fail("entered")
    assert names(tmp_path / "full") == ["mine"]


def test_a_disk_cannot_be_made_anew(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.setattr(module.os.path, "ismount", lambda path: path == tmp_path / "disk")
    for name in ("disk", "link"):
        sentence = "is where a disk is mounted, and no folder can take its place; name one inside it"
        with pytest.raises(UserError, match=sentence), new_folder(tmp_path / name):
            pytest.fail("entered")
    with new_folder(tmp_path / "disk" / "a"):
        pass
    assert names(tmp_path) == ["disk", "link"] and names(tmp_path / "disk") == ["a"]


def test_what_cannot_get_its_name_is_kept(tmp_path):
    """Also by a second run under the same name."""
    for sentence in ("b.unfinished is whole and cannot be called .*b .Directory not empty.; move it", "is in the way"):
        with pytest.raises(UserError, match=sentence), new_folder(tmp_path / "b") as work:
            (work / "new").touch()
            (tmp_path / "b").mkdir()
            (tmp_path / "b" / "of somebody else").touch()
        (tmp_path / "b" / "of somebody else").unlink(missing_ok=True)
        assert names(tmp_path / "b.unfinished") == ["new"]


def test_an_unfinished_folder_of_somebody_else_stays(tmp_path):
    other = tmp_path / "b.unfinished"
    other.mkdir()
    (other / "novel.txt").touch()
    with pytest.raises(UserError, match=r"b\.unfinished is in the way, and none of ours"), new_folder(tmp_path / "b"):
        pytest.fail("entered")
    assert names(other) == ["novel.txt"]


def test_what_a_killed_process_left_is_replaced(tmp_path):
    left = tmp_path / "b.unfinished"
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "old").touch()
    (left / LOCK_NAME).touch()
    with new_folder(tmp_path / "b") as work:
        assert names(work) == [LOCK_NAME]
        (work / "new").touch()
    assert names(tmp_path) == ["b"] and names(tmp_path / "b") == ["new"]


def test_two_processes_cannot_fill_one_folder(tmp_path):
    with (
        lock_folder(tmp_path / "b.unfinished"),
        pytest.raises(UserError, match="is being written by process"),
        new_folder(tmp_path / "b"),
    ):
        pytest.fail("entered")


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "link")
    with new_folder(tmp_path / "link") as work:
        (work / "new").touch()
    assert names(tmp_path / "link") == ["new"] and (tmp_path / "link").is_symlink()


def test_room_is_asked_for_where_the_folder_will_be(tmp_path, monkeypatch):
    asked = []

    def usage(path):
        asked.append(path)
        return type("Usage", (), {"free": 10**9})

    monkeypatch.setattr(module.shutil, "disk_usage", usage)
    require_space(tmp_path / "not" / "there", 10**9)
    with pytest.raises(UserError, match=r"--save .*there: 2 GB will be written and 1 GB are free"):
        require_space(tmp_path / "not" / "there", 2 * 10**9)
    assert asked == [tmp_path, tmp_path]
