"""The benchmark of conversions makes what a run on TP 2, PP 2 saves, and compares what came back."""

import filecmp
import shutil

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.conversion import TOY_BYTES, measure, plain_copy, print_table, require_equal
from benchmarks.sharded_run import causal_decoder, make_run, one_table, turned
from megatron.basics.errors import RunFault, UserError
from megatron.checkpoint.manifest import read_manifest
from megatron.cli.convert import main as convert
from megatron.conversion.checkpoint_weights import CheckpointWeights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """run: a checkpoint in pieces."""
    folder = tmp_path_factory.mktemp("benchmark")
    make_run(folder / "run", *causal_decoder(TOY_BYTES))
    return folder


def test_there_and_back(folder, tmp_path, capsys):
    checkpoint = folder / "run" / "iter_0000100"
    exports = [tmp_path / "exported", tmp_path / "again"]
    there = measure("to-hf", folder / "run", folder / "run", exports[0], "300KB")
    back = measure("from-hf", exports[0], exports[0], tmp_path / "imported", "300KB")
    size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    assert abs(there.written / size - 1) < 0.05 and abs(back.written / size - 1) < 0.05
    assert there.seconds > 0 and there.largest < 400_000
    require_equal(checkpoint, tmp_path / "imported" / "iter_0000000")
    # From one rank's pieces as from those of four.
    convert(
        [
            "to-hf",
            "--load",
            str(tmp_path / "imported"),
            "--save",
            str(exports[1]),
            "--max-shard-size",
            "300KB",
            "--no-verify",
        ]
    )
    names = [path.name for path in exports[0].glob("*.safetensors")]
    assert len(names) > 3 and filecmp.cmpfiles(*exports, names, shallow=False)[0] == names
    turns = {"to-hf": [there], "from-hf": [back], "copy": [plain_copy(checkpoint, tmp_path / "copy")]}
    print_table(turns)
    assert capsys.readouterr().out.splitlines()[-1].rstrip().endswith("100%")


def test_pieces_are_those_of_a_run(folder):
    manifest = read_manifest(folder / "run" / "iter_0000100")
    assert sorted(manifest.files) == [f"shard_{rank:05d}.safetensors" for rank in range(4)]
    gate_and_up = manifest.tensors["decoder.layers.0.mlp.linear_fc1.weight"]
    rows = gate_and_up.shape[0] // 4
    cuts = sorted((piece.offset, piece.file[10]) for piece in gate_and_up.pieces)
    assert cuts == [((cut * rows, 0), str(cut % 2)) for cut in range(4)]
    projection = manifest.tensors["decoder.layers.1.self_attention.linear_proj.weight"]
    assert [(piece.file[10], piece.offset) for piece in projection.pieces] == [("2", (0, 0)), ("3", (0, 32))]
    assert manifest.tensors["output_layer.weight"].pieces[0].file[10] == "2"
    sizes = [sum(torch.Size(entry.shape).numel() for entry in manifest.tensors.values()), TOY_BYTES // 4]
    assert 0.5 < sizes[0] / sizes[1] < 2


def test_what_came_back_otherwise_is_told(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.sharded_run.PATTERN", 1000)
    other = make_run(tmp_path / "other", *causal_decoder(TOY_BYTES))
    with pytest.raises(RunFault, match=r"weight did not come back as it went"):
        require_equal(folder / "run" / "iter_0000100", other)


def test_one_table(tmp_path):
    checkpoint = make_run(tmp_path / "run", *one_table(2 * TOY_BYTES))
    manifest = read_manifest(checkpoint)
    table = torch.Size(manifest.tensors["embedding.word_embeddings.weight"].shape).numel()
    assert table > 0.9 * sum(torch.Size(entry.shape).numel() for entry in manifest.tensors.values())


def test_matrices_that_are_turned(tmp_path):
    checkpoint = make_run(tmp_path / "run", *turned(TOY_BYTES))
    measure("to-hf", tmp_path / "run", tmp_path / "run", tmp_path / "exported", "5GB")
    read = load_file(tmp_path / "exported" / "model.safetensors")
    manifest = read_manifest(checkpoint)
    name = "decoder.layers.1.mlp.linear_fc1.weight"
    weights = CheckpointWeights(checkpoint, manifest, {name: manifest.tensors[name].shape})
    assert torch.equal(read["transformer.h.1.mlp.c_fc.weight"], weights.read(name).t())


@pytest.mark.parametrize("rank", [0, 3])
def test_a_piece_of_a_checkpoint_that_is_gone_cut_or_changed(rank, folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    path = tmp_path / "run" / "iter_0000100" / f"shard_{rank:05d}.safetensors"
    content = path.read_bytes()
    command = ["to-hf", "--load", str(tmp_path / "run"), "--save", str(tmp_path / "out"), "--no-verify"]
    last = len(content) - 1
    for damaged in (content[:-100], content[:last] + bytes([content[last] ^ 1]), None):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        with pytest.raises(UserError) as raised:
            convert(command)
        assert len(raised.value.faults) == 1 and str(path) in raised.value.faults[0]
        assert not (tmp_path / "out").exists() and not (tmp_path / "out.unfinished").exists()
        path.write_bytes(content)
    convert(command)
    read = {
        name: tensor for file in (tmp_path / "out").glob("*.safetensors") for name, tensor in load_file(file).items()
    }
    weights = CheckpointWeights(path.parent, read_manifest(path.parent), {"output_layer.weight": (1024, 64)})
    assert torch.equal(read["lm_head.weight"], weights.read("output_layer.weight"))
