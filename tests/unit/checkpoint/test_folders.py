"""Names of a run folder: what counts as a checkpoint, what is kept, and whose folders are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.basics.errors import UserError
from megatron.checkpoint import folders
from megatron.checkpoint.manifest import MANIFEST_NAME


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for iteration in range(1, 8):
        fill(folders.checkpoint_folder(tmp_path, iteration))
    return tmp_path


def fill(folder: Path) -> Path:
    folder.mkdir()
    for name in (MANIFEST_NAME, "shard_00000.safetensors"):
        (folder / name).touch()
    return folder


def iterations(run: Path) -> list[int]:
    return [iteration for iteration, _ in folders.checkpoints_of(run)]


def test_only_named_and_finished_ones_count(run: Path) -> None:
    fill(folders.unfinished_folder(run, 8))
    fill(run / "iter_9")
    fill(run / "iter_0000010.bak")
    (run / "iter_0000011").mkdir()
    fill(run / "iter_12345678")
    assert iterations(run) == [*range(1, 8), 12345678]
    assert iterations(run / "absent") == []


@pytest.mark.parametrize(
    ("newest", "keep_last", "keep_every", "left"),
    [
        (7, None, None, [1, 2, 3, 4, 5, 6, 7]),
        (7, 1, None, [7]),
        (7, 2, 3, [3, 6, 7]),
        (7, 9, None, [1, 2, 3, 4, 5, 6, 7]),
        (4, 1, None, [4, 5, 6, 7]),  # 5 to 7 were passed over as damaged: they do not push the sound one out
        (0, 1, None, [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_retention(newest: int, keep_last: int | None, keep_every: int | None, left: list[int], run: Path) -> None:
    removed = folders.remove_surplus(run, newest, keep_last, keep_every)
    assert iterations(run) == left
    assert sorted([*removed, *left]) == [1, 2, 3, 4, 5, 6, 7]
    assert all(path.name.startswith("iter_") for path in run.iterdir())


def test_publish_sets_aside_what_was_there_and_notes_the_newest(run: Path) -> None:
    (fill(folders.unfinished_folder(run, 7)) / "shard_00001.safetensors").touch()
    folder = folders.publish(run, 7)
    assert (folder / "shard_00001.safetensors").exists() and iterations(run)[-1] == 7
    assert len(list((run / "iter_0000007.damaged").iterdir())) == 2
    assert (run / folders.LATEST_NAME).read_text() == "7\n"


def test_a_stale_note_of_the_newest_does_not_undo_a_save(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> object:
        raise UserError("the disk is full.")

    monkeypatch.setattr(folders, "atomic_writer", full)
    fill(folders.unfinished_folder(run, 8))
    folders.publish(run, 8)
    assert iterations(run)[-1] == 8
    assert "the disk is full. The checkpoint itself" in caplog.text


def test_what_was_passed_over_is_kept_and_counts_no_more(run: Path) -> None:
    folders.set_aside_between(run, 4, 7)
    assert iterations(run) == [1, 2, 3, 4, 7]
    assert (run / "iter_0000005.damaged" / MANIFEST_NAME).exists()
    fill(folders.checkpoint_folder(run, 5))
    folders.set_aside(folders.checkpoint_folder(run, 5))
    assert (run / "iter_0000005.damaged2" / MANIFEST_NAME).exists()
    folders.refuse_folders_of_others(run)
    assert folders.remove_surplus(run, 7, 1, None) == [1, 2, 3, 4]
    folders.remove_unfinished(run)
    left = ["iter_0000005.damaged", "iter_0000005.damaged2", "iter_0000006.damaged", "iter_0000007"]
    assert sorted(path.name for path in run.iterdir()) == left


def test_what_a_killed_process_left_goes(run: Path) -> None:
    fill(folders.unfinished_folder(run, 8))
    fill(run / ".iter_0000001.removed")
    (run / ".run.json.abc.tmp").touch()
    folders.remove_unfinished(run)
    assert sorted(path.name for path in run.iterdir()) == [f"iter_{number:07d}" for number in range(1, 8)]


def test_folders_of_others_stay(run: Path) -> None:
    folders.refuse_folders_of_others(run)
    (run / "iter_0000009").mkdir()
    folders.refuse_folders_of_others(run)
    (run / "iter_0000009" / "common.pt").touch()
    with pytest.raises(UserError, match="iter_0000009 is not a checkpoint of this program"):
        folders.refuse_folders_of_others(run)


def test_a_file_with_the_name_of_a_checkpoint(run: Path) -> None:
    (run / "iter_0000009").touch()
    assert iterations(run) == list(range(1, 8))
    with pytest.raises(UserError, match="iter_0000009 is not a checkpoint of this program"):
        folders.refuse_folders_of_others(run)
