"""Bad input is answered by sentences on stderr, exit code 2, no traceback, and nothing left behind."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from faults import Fault
from launch import ROOT, environment_for
from run_folder import assert_sound, iterations_of, leftovers_of, listing, losses_of, tensors_of
from trainer import Ended


def assert_refused(ended, *fragments, code=2):
    assert ended.code == code, ended.output
    assert "Traceback" not in ended.output
    assert ended.errors and all(error.endswith((".", "?")) for error in ended.errors)
    for fragment in fragments:
        assert any(fragment in error for error in ended.errors), (fragment, ended.errors)


WRONG_SETTINGS = {
    "heads": ({"num_attention_heads": 3}, "--hidden-size 32 is not divisible by --num-attention-heads 3"),
    "stages": ({"pipeline_model_parallel_size": 3, "world_size": 3}, "--pipeline-model-parallel-size 3 cannot split 2"),
    "world": ({"tensor_model_parallel_size": 2}, "a world of 1 cannot hold --tensor-model-parallel-size 2"),
    "batch": ({"global_batch_size": 5}, "--global-batch-size 5 is not divisible"),
    "unknown": ({"frobnicate": 3}, "--frobnicate"),
    "misspelt": ({"hiden_size": 64}, "--hidden-size"),
    "no tokens": ({"data_path": "/nowhere/text"}, "/nowhere/text"),
    "no tokenizer": ({"tokenizer_model": "/nowhere/tok.model"}, "--tokenizer-model /nowhere/tok.model"),
    "no gpu": ({"device": "cuda"}, "--device cuda"),
    "objective": ({"objective": "ful_lm"}, "full_lm"),
}


@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_wrong_setting(name, tiny_corpus, entry_script, tmp_path):
    """A start of its own for each; all but the question for a GPU are answered before torch is imported."""
    changed, fragment = WRONG_SETTINGS[name]
    environment = {"WORLD_SIZE": str(changed.get("world_size", 1)), "PYTHONPROFILEIMPORTTIME": "1"}
    flags = tiny_corpus.flags(save=tmp_path / "run", **{k: v for k, v in changed.items() if k != "world_size"})
    done = subprocess.run(
        [sys.executable, entry_script, *flags],
        cwd=ROOT,
        env=environment_for(environment),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert_refused(Ended([done.returncode], done.stderr), fragment)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "argparse" in imported
    assert ("torch" in imported) == (name == "no gpu")
    assert list(tmp_path.iterdir()) == []


def test_yaml_that_cannot_be_read(trainer, tiny_corpus, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("hidden_size: [64\n")
    assert_refused(trainer.run(tiny_corpus.flags(config=config)), str(config))
    assert_refused(trainer.run(tiny_corpus.flags(config=tmp_path)), str(tmp_path))


@pytest.fixture
def own_corpus(tiny_corpus, tmp_path):
    """A copy of the corpus that may be damaged, without the facts beside it: as made by Megatron-LM."""
    prefix = tmp_path / "text_document"
    for suffix in (".bin", ".idx"):
        shutil.copy(tiny_corpus.prefix + suffix, f"{prefix}{suffix}")
    return prefix


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_truncated_or_missing_token_file(suffix, own_corpus, trainer, tiny_corpus, tmp_path):
    path = Path(f"{own_corpus}{suffix}")
    flags = tiny_corpus.flags(data_path=own_corpus, save=tmp_path / "run")
    content = path.read_bytes()
    for length in (len(content) - 7, len(content) // 2, 0):
        path.write_bytes(content[:length])
        assert_refused(trainer.run(flags), str(path))
        assert not (tmp_path / "run").exists()
    path.unlink()
    assert_refused(trainer.run(flags), str(path))


def test_token_over_the_vocabulary(own_corpus, trainer, tiny_corpus):
    path = Path(f"{own_corpus}.bin")
    content = bytearray(path.read_bytes())
    content[: len(content) // 2] = b"\xff\x7f" * (len(content) // 4)
    path.write_bytes(content)
    assert_refused(trainer.run(tiny_corpus.flags(data_path=own_corpus)), str(path))


def test_index_of_another_tokenizer(own_corpus, trainer, tiny_corpus):
    facts = json.loads(Path(tiny_corpus.prefix + ".json").read_text())
    Path(f"{own_corpus}.json").write_text(json.dumps({**facts, "tokenizer_fingerprint": "0" * 64}))
    assert_refused(trainer.run(tiny_corpus.flags(data_path=own_corpus)), "okenizer")


@pytest.fixture(scope="module")
def finished_run(trainer, tiny_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    trainer.finish(tiny_corpus.flags(train_iters=4, save=folder, save_interval=2))
    return folder


def test_no_checkpoint_of_a_run_was_opened_for_code(finished_run):
    """Pickles and zip files, which torch.save writes, begin with these bytes."""
    files = [path for path in finished_run.rglob("*") if path.is_file()]
    assert len(files) > 6
    assert not [path for path in files if path.read_bytes().startswith((b"\x80", b"PK"))]


@pytest.mark.parametrize("changed", [{"hidden_size": 64, "seed": 7}, {"num_layers": 1, "load": "", "finetune": True}])
def test_checkpoint_of_another_model(changed, finished_run, trainer, tiny_corpus, tmp_path):
    before = listing(finished_run)
    if "load" in changed:
        flags = tiny_corpus.flags(save=tmp_path / "run", **{**changed, "load": finished_run})
    else:
        flags = tiny_corpus.flags(train_iters=8, save=finished_run, **changed)
    assert_refused(trainer.run(flags), "-layers is 1 here and 2" if "load" in changed else "--hidden-size is 64 here")
    assert listing(finished_run) == before and list(tmp_path.iterdir()) == []


def test_half_written_checkpoint(finished_run, trainer, tiny_corpus, tmp_path):
    """What a killed save leaves is no checkpoint, neither to --load nor to a run that goes on."""
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    for iteration in (2, 4):
        (folder / f"iter_000000{iteration}").rename(folder / f".iter_000000{iteration}.unfinished")
    before = listing(folder)
    assert_refused(trainer.run(tiny_corpus.flags(load=folder)), f"--load {folder} holds no complete checkpoint")
    assert listing(folder) == before
    assert_refused(trainer.run(tiny_corpus.flags(load=tmp_path / "absent")), f"--load {tmp_path / 'absent'}")


@pytest.mark.parametrize("damage", ["empty", "half", "last byte", "deleted", "bit"])
@pytest.mark.parametrize("name", ["manifest.json", "shard_00000.safetensors"])
def test_damaged_checkpoint(name, damage, finished_run, trainer, tiny_corpus, tmp_path):
    """The newest one is damaged: it is named, and the run goes on from the one before it, to the same weights."""
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    path = folder / "iter_0000004" / name
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[len(content) * 2 // 3] ^= 4
    path.write_bytes(
        {"empty": b"", "half": content[: len(content) // 2], "last byte": content[:-1]}.get(damage, content)
    )
    if damage == "deleted":
        path.unlink()
    ended = trainer.finish(tiny_corpus.flags(train_iters=4, save=folder))
    if (name, damage) != ("manifest.json", "deleted"):  # that one never was a checkpoint
        named, set_aside = [line for line in ended.output.splitlines() if line.startswith("warning")]
        assert str(path) in named and "trying the checkpoint before it" in named
        assert "iter_0000004.damaged" in set_aside and (folder / "iter_0000004.damaged").is_dir()
    assert f"loaded {folder}/iter_0000002" in ended.output
    assert tensors_of(folder, 4) == tensors_of(finished_run, 4)


def test_every_checkpoint_is_damaged(finished_run, trainer, tiny_corpus, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    for shard in folder.glob("iter_*/shard_*"):
        content = bytearray(shard.read_bytes())
        content[-5] ^= 1
        shard.write_bytes(content)
    before = {path: path.read_bytes() for path in folder.glob("iter_*/*")}
    ended = trainer.run(tiny_corpus.flags(train_iters=4, save=folder))
    assert_refused(ended, f"{folder} holds no checkpoint that can be loaded")
    assert len(ended.errors) == 1
    assert {path: path.read_bytes() for path in folder.glob("iter_*/*")} == before


def test_full_disk(trainer, tiny_corpus, tmp_path):
    """No file may grow beyond 64 kB, which the system reports as it does a full disk: nothing half-written stays."""
    folder = tmp_path / "run"
    ended = trainer.run(tiny_corpus.flags(train_iters=3, save=folder, save_interval=1), file_size=65536)
    assert_refused(ended, "iteration 3 was not saved")
    warnings = [line for line in ended.output.splitlines() if line.startswith("warning")]
    assert [f"iteration {number} was not saved" in line for number, line in enumerate(warnings, 1)] == [True, True]
    assert iterations_of(folder) == [] and leftovers_of(folder) == [] and len(losses_of(folder)) == 3


@pytest.fixture
def small_disk(tmp_path):
    """Mount(options) mounts a file system in memory; only root may."""
    mounted = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
        if done.returncode:
            pytest.skip("no file system can be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def test_too_small_disk(small_disk, trainer, tiny_corpus):
    """A disk that cannot hold one checkpoint is refused before the first step."""
    disk = small_disk("size=500k")
    ended = trainer.run(tiny_corpus.flags(train_iters=2, save=disk / "run"))
    assert_refused(ended, "a checkpoint needs 0.000686 GB and 0.000")
    assert listing(disk) == []


def test_disk_that_fills_up(small_disk, trainer, tiny_corpus):
    """The older checkpoints stay whole, and the run goes on where there is room again."""
    disk = small_disk("size=2m")
    flags = tiny_corpus.flags(train_iters=6, save=disk / "run", save_interval=1)
    ended = trainer.run(flags)
    assert_refused(ended, "iteration 6 was not saved", "the disk is full")
    assert iterations_of(disk / "run") == [1, 2] and leftovers_of(disk / "run") == []
    for iteration in (1, 2):
        assert_sound(disk / "run" / f"iter_000000{iteration}")
    shutil.rmtree(disk / "run" / "iter_0000001")
    trainer.finish([*flags, "--keep-last", "1"])
    assert iterations_of(disk / "run") == [6]


def test_read_only_folder(small_disk, trainer, tiny_corpus):
    disk = small_disk("ro")
    assert_refused(trainer.run(tiny_corpus.flags(save=disk / "run")), f"--save {disk / 'run'}", "no permission")


def test_folder_that_the_ranks_do_not_share(trainer, tiny_corpus, tmp_path):
    """Before the first step, and without a trace on either side."""
    places = [tmp_path / "node0", tmp_path / "node1"]
    for place in places:
        place.mkdir()
    flags = tiny_corpus.flags(train_iters=2, save="run", tensor_model_parallel_size=2)
    faults = [Fault(at="elsewhere", call=0, folder=str(place), rank=rank) for rank, place in enumerate(places)]
    ended = trainer.run(flags, ranks=2, faults=faults)
    assert set(ended.codes) <= {2, -15} and "Traceback" not in ended.output, ended.output
    assert f"error: --save run: rank 1 on {socket.gethostname()} does not see what rank 0 writes there" in ended.output
    assert "iteration" not in ended.output
    assert [list(place.iterdir()) for place in places] == [[], []]


def test_folder_that_is_a_file(trainer, tiny_corpus, tmp_path):
    (tmp_path / "run").write_text("mine")
    assert_refused(trainer.run(tiny_corpus.flags(save=tmp_path / "run")), "is not a folder")
    assert (tmp_path / "run").read_text() == "mine"
