"""Bad input is answered by sentences on stderr, exit code 2, no traceback, and nothing left behind."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from launch import ROOT, environment_for
from test_kill import finish


def run(entry_script, flags, world_size=1, **options):
    return subprocess.run(
        [sys.executable, entry_script, *flags],
        cwd=ROOT,
        env=environment_for({"WORLD_SIZE": str(world_size)}),
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def assert_refused(done, *fragments, code=2):
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    faults = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert faults and all(fault.endswith((".", "?")) for fault in faults)
    for fragment in fragments:
        assert any(fragment in fault for fault in faults), (fragment, faults)


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
    changed, fragment = WRONG_SETTINGS[name]
    world_size = changed.get("world_size", 1)
    flags = {key: value for key, value in changed.items() if key != "world_size"}
    done = run(entry_script, tiny_corpus.flags(save=tmp_path / "run", **flags), world_size)
    assert_refused(done, fragment)
    assert list(tmp_path.iterdir()) == []


def test_yaml_that_cannot_be_read(tiny_corpus, entry_script, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("hidden_size: [64\n")
    assert_refused(run(entry_script, tiny_corpus.flags(config=config)), str(config))


@pytest.fixture
def own_corpus(tiny_corpus, tmp_path):
    """A copy of the corpus that may be damaged, without the facts beside it: as made by Megatron-LM."""
    prefix = tmp_path / "text_document"
    for suffix in (".bin", ".idx"):
        shutil.copy(tiny_corpus.prefix + suffix, f"{prefix}{suffix}")
    return prefix


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_truncated_token_file(suffix, own_corpus, tiny_corpus, entry_script, tmp_path):
    path = Path(f"{own_corpus}{suffix}")
    path.write_bytes(path.read_bytes()[:-7])
    done = run(entry_script, tiny_corpus.flags(data_path=own_corpus, save=tmp_path / "run"))
    assert_refused(done, str(path))
    assert not list((tmp_path / "run").glob("iter_*"))


def test_token_over_the_vocabulary(own_corpus, tiny_corpus, entry_script):
    path = Path(f"{own_corpus}.bin")
    content = bytearray(path.read_bytes())
    content[: len(content) // 2] = b"\xff\x7f" * (len(content) // 4)
    path.write_bytes(content)
    assert_refused(run(entry_script, tiny_corpus.flags(data_path=own_corpus)), str(path))


def test_index_of_another_tokenizer(own_corpus, tiny_corpus, entry_script):
    facts = json.loads(Path(tiny_corpus.prefix + ".json").read_text())
    Path(f"{own_corpus}.json").write_text(json.dumps({**facts, "tokenizer_fingerprint": "0" * 64}))
    assert_refused(run(entry_script, tiny_corpus.flags(data_path=own_corpus)), "okenizer")


@pytest.fixture(scope="module")
def finished_run(tiny_corpus, entry_script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    finish([sys.executable, entry_script, *tiny_corpus.flags(train_iters=4, save=folder, save_interval=2)])
    return folder


def test_checkpoint_of_another_model(finished_run, tiny_corpus, entry_script):
    before = sorted(os.listdir(finished_run))
    flags = tiny_corpus.flags(train_iters=8, save=finished_run, hidden_size=64, seed=7)
    done = run(entry_script, flags)
    assert_refused(done, "--hidden-size is 64 here and 32 in")
    assert sorted(os.listdir(finished_run)) == before


@pytest.mark.parametrize("damage", ["empty", "half", "last byte", "deleted", "bit"])
@pytest.mark.parametrize("name", ["manifest.json", "shard_00000.safetensors"])
def test_damaged_checkpoint(name, damage, finished_run, tiny_corpus, entry_script, tmp_path):
    """The newest one is damaged: it is named, and the run goes on from the one before it."""
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
    done = run(entry_script, tiny_corpus.flags(train_iters=4, save=folder))
    assert done.returncode == 0, done.stderr
    if (name, damage) != ("manifest.json", "deleted"):  # that one never was a checkpoint
        assert f"{path.parent}" in done.stderr and "trying the checkpoint before it" in done.stderr
    assert "iter_0000002" in done.stderr
    repaired = [json.loads((f / "iter_0000004" / "manifest.json").read_text()) for f in (folder, finished_run)]
    assert repaired[0]["body"]["tensors"] == repaired[1]["body"]["tensors"]


def test_full_disk(tiny_corpus, entry_script, tmp_path):
    """No file may grow beyond 64 kB, which the system reports as it does a full disk: nothing half-written stays."""
    folder = tmp_path / "run"
    flags = tiny_corpus.flags(train_iters=2, save=folder)
    done = run(entry_script, flags, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)))
    assert_refused(done, "iteration 2 was not saved")
    assert list(folder.glob("*iter_*")) == [] and list(folder.glob(".iter_*")) == []


def test_folder_in_use(finished_run, tiny_corpus, entry_script):
    from megatron.basics.lock_file import lock_folder

    with lock_folder(finished_run):
        done = run(entry_script, tiny_corpus.flags(train_iters=8, save=finished_run))
    assert_refused(done, f"process {os.getpid()}")
