"""Whatever happens to the files of a checkpoint is noticed, told in one sentence, and runs no code."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from megatron.basics.errors import UserError
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.manifest import MANIFEST_NAME, CorruptCheckpoint, Manifest, read_manifest
from megatron.checkpoint.shards import ShardReader, stage, write_shard
from megatron.device.device import choose_device

SHARD_NAME = "shard_00000.safetensors"
FILES = (MANIFEST_NAME, SHARD_NAME)
TENSORS = {
    "embedding.word_embeddings.weight": torch.arange(48.0).reshape(12, 4),
    "decoder.layers.0.mlp.linear_fc1.weight": torch.linspace(-1, 1, 35).reshape(5, 7).bfloat16(),
    "optimizer.state.exp_avg.decoder.final_layernorm.weight": torch.zeros(9),
}


def sharded(key: str, data: Tensor) -> object:
    choose_device("cpu")
    from megatron.core.dist_checkpointing.mapping import ShardedTensor

    return ShardedTensor.from_rank_offsets(key, data)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "iter_0000007"
    folder.mkdir()
    contents = Contents(
        progress=Progress(iteration=7, consumed_samples=28),
        run={"model": {"hidden_size": 4, "layernorm_epsilon": 1e-05}},
        tokenizer={"fingerprint": "0f" * 8},
        lineage=[{"objective": "full_lm", "tokens": 168_000_000_000}],
        optimizer={"step": 7, "grad_scaler": None},
    )
    tensors, files = write_shard(stage([sharded(*item) for item in TENSORS.items()], SHARD_NAME), folder, SHARD_NAME)
    Manifest(tensors, files, contents).write(folder)
    return folder


@pytest.fixture
def checkpoint(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / sound.name))


def read_all(folder: Path) -> tuple[Contents, dict[str, Tensor]]:
    manifest = read_manifest(folder)
    reader = ShardReader(folder, manifest)
    tensors = {key: reader.fill(sharded(key, torch.empty_like(data))) for key, data in TENSORS.items()}
    return manifest.contents, tensors


def assert_named(folder: Path, name: str) -> None:
    with pytest.raises(CorruptCheckpoint) as fault:
        read_all(folder)
    (sentence,) = str(fault.value).splitlines()
    assert str(folder / name) in sentence


def test_sound(sound: Path) -> None:
    contents, tensors = read_all(sound)
    assert contents.progress.consumed_samples == 28
    assert all(torch.equal(tensors[key], data) for key, data in TENSORS.items())


@pytest.mark.parametrize("name", FILES)
def test_one_bit(name: str, sound: Path, checkpoint: Path) -> None:
    content = (sound / name).read_bytes()
    rng = random.Random(0)
    for _ in range(500):
        place, bit = rng.randrange(len(content)), rng.randrange(8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        (checkpoint / name).write_bytes(flipped)
        if name == MANIFEST_NAME and means_the_same(bytes(flipped), content):
            continue
        assert_named(checkpoint, name)


def means_the_same(changed: bytes, content: bytes) -> bool:
    """1e-05 and 1E-05 differ in one bit."""
    try:
        return json.loads(changed) == json.loads(content)
    except ValueError:
        return False


@pytest.mark.parametrize("name", FILES)
def test_truncated(name: str, sound: Path, checkpoint: Path) -> None:
    content = (sound / name).read_bytes()
    rng = random.Random(0)
    for length in (0, 1, 7, 8, 9, len(content) // 2, len(content) - 1, *rng.sample(range(len(content)), 50)):
        (checkpoint / name).write_bytes(content[:length])
        assert_named(checkpoint, name)


@pytest.mark.parametrize("name", FILES)
def test_grown_zeroed_or_gone(name: str, sound: Path, checkpoint: Path) -> None:
    content = (sound / name).read_bytes()
    for changed in (content + b"\0", bytes(len(content)), content[::-1], b"[" * 100_000):
        (checkpoint / name).write_bytes(changed)
        assert_named(checkpoint, name)
    (checkpoint / name).unlink()
    assert_named(checkpoint, name)


def test_tensors_that_changed_places(checkpoint: Path) -> None:
    """Two checkpoints of one run have files of the same names and sizes."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / SHARD_NAME)
    save_file({name: data + 1 for name, data in tensors.items()}, checkpoint / SHARD_NAME)
    assert_named(checkpoint, SHARD_NAME)


@pytest.mark.parametrize("name", FILES)
def test_a_pickle_is_not_opened(name: str, checkpoint: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "exploded",)

    size = (checkpoint / name).stat().st_size
    bomb = pickle.dumps(Bomb())
    (checkpoint / name).write_bytes(bomb + bytes(size - len(bomb)))
    assert_named(checkpoint, name)
    torch.save(Bomb(), checkpoint / name)
    assert_named(checkpoint, name)
    assert not (tmp_path / "exploded").exists()


def test_a_file_elsewhere_is_not_read(checkpoint: Path) -> None:
    manifest = read_manifest(checkpoint)
    outside = Manifest(manifest.tensors, {"../secret.safetensors": 1}, manifest.contents)
    outside.write(checkpoint)
    with pytest.raises(CorruptCheckpoint, match=r"outside of its folder: \.\./secret"):
        read_manifest(checkpoint)


def test_another_model_is_not_damage(sound: Path) -> None:
    reader = ShardReader(sound, read_manifest(sound))
    with pytest.raises(UserError, match="has no tensor lm_head"):
        reader.fill(sharded("lm_head", torch.empty(3)))
    with pytest.raises(UserError, match=r"is \[12, 4\] there and \[13, 4\] in this model"):
        reader.fill(sharded("embedding.word_embeddings.weight", torch.empty(13, 4)))


@pytest.mark.parametrize("version", [0, 2, "2"])
def test_another_version_is_not_damage(version: object, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = read_manifest(checkpoint)
    monkeypatch.setattr("megatron.checkpoint.manifest.FORMAT_VERSION", version)
    ours.write(checkpoint)
    monkeypatch.undo()
    with pytest.raises(UserError, match=f"has format version {version} and this program reads version 1: use") as fault:
        read_manifest(checkpoint)
    assert len(fault.value.faults) == 1
