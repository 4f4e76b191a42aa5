"""Whole tensors come out of checkpoints whatever boxes they were cut into, and damage is named."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from megatron.basics.errors import UserError
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.folders import checkpoints_of
from megatron.checkpoint.manifest import Manifest, Piece, TensorEntry, read_manifest
from megatron.checkpoint.shards import checksum
from megatron.conversion.checkpoint_weights import CheckpointWeights
from megatron.conversion.checkpoint_writer import write_checkpoint
from megatron.conversion.tensor_writer import PlannedTensor

CONTENTS = Contents(progress=Progress(), run={}, tokenizer={}, lineage=[], optimizer={"step": 0, "grad_scaler": None})


@st.composite
def cut_tensors(draw):
    """(tensor, [cuts of each dimension])"""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    cuts = [sorted({0, size, *draw(st.lists(st.integers(0, size), max_size=2))}) for size in shape]
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    return torch.randn(shape).to(dtype), cuts


def write_cut(folder, tensors):
    """A checkpoint whose tensors are cut into boxes that alternate between two files."""
    entries, files = {}, {"shard_00000.safetensors": {}, "shard_00001.safetensors": {}}
    turn = itertools.cycle(files)
    for key, (tensor, cuts) in tensors.items():
        pieces = []
        for box in itertools.product(*(itertools.pairwise(own) for own in cuts)):
            data = tensor[tuple(slice(*edges) for edges in box)].contiguous()
            offset, file = tuple(start for start, _ in box), next(turn)
            name = f"{key}@{','.join(map(str, offset))}"
            files[file][name] = data
            pieces.append(Piece(file, name, offset, tuple(data.shape), checksum(data)))
        entries[key] = TensorEntry(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tuple(pieces))
    for file, content in files.items():
        save_file(content, folder / file)
    sizes = {file: (folder / file).stat().st_size for file in files}
    Manifest(entries, sizes, CONTENTS).write(folder)
    return read_manifest(folder)


@settings(deadline=None, max_examples=30)
@given(weight=cut_tensors(), master=cut_tensors())
def test_boxes_become_whole_tensors(weight, master, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    manifest = write_cut(folder, {"a.weight": weight, "optimizer.state.param.a.weight": master})
    weights = CheckpointWeights(folder, manifest, {"a.weight": tuple(weight[0].shape)})
    assert torch.equal(weights.read("a.weight"), weight[0])
    assert torch.equal(weights.read("a.weight", master=True), master[0])
    assert weights.dtype == str(weight[0].dtype).removeprefix("torch.")


def test_masters_are_those_that_can_stand_for_the_weights(tmp_path):
    name, master = "a.weight", "optimizer.state.param.a.weight"
    cuts = [[0, 1, 2], [0, 3]]
    tensors = {name: (torch.ones(2, 3).bfloat16(), cuts), master: (torch.ones(2, 3), cuts)}
    manifest = write_cut(tmp_path, tensors)
    entry = manifest.tensors[master]
    for changed, counts in (
        (entry, True),
        (TensorEntry("bfloat16", (2, 3), entry.pieces), False),
        (TensorEntry("float32", (3, 2), entry.pieces), False),
        (TensorEntry("float32", (2, 3), entry.pieces[:1]), False),
    ):
        manifest.tensors[master] = changed
        assert CheckpointWeights(tmp_path, manifest, {name: (2, 3)}).has_masters == counts


@pytest.fixture
def cut(tmp_path):
    tensor = torch.arange(12.0).reshape(4, 3)
    return tmp_path, write_cut(tmp_path, {"a.weight": (tensor, [[0, 2, 4], [0, 3]])})


def test_what_a_checkpoint_lacks_is_told_at_once(cut):
    folder, manifest = cut
    with pytest.raises(UserError) as raised:
        CheckpointWeights(folder, manifest, {"a.weight": (3, 4), "b.weight": (1,)})
    assert raised.value.faults == (
        f"{folder}: a.weight is [4, 3], and by its own settings [3, 4].",
        f"{folder} has no tensor b.weight, which a model of its own settings has.",
    )
    assert not CheckpointWeights(folder, manifest, {"a.weight": (4, 3)}).has_masters


def test_a_part_that_is_missing(cut):
    folder, manifest = cut
    entry = manifest.tensors["a.weight"]
    torn = Manifest({"a.weight": TensorEntry(entry.dtype, entry.shape, entry.pieces[:1])}, manifest.files, CONTENTS)
    with pytest.raises(UserError, match=r"lacks a part of a\.weight; name another checkpoint with --load-iteration"):
        CheckpointWeights(folder, torn, {"a.weight": (4, 3)})


def test_a_flipped_bit_names_file_and_tensor(cut):
    folder, manifest = cut
    path = folder / "shard_00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    weights = CheckpointWeights(folder, manifest, {"a.weight": (4, 3)})
    with pytest.raises(
        UserError, match=r"shard_00001.safetensors is damaged: the bytes of a.weight@2,0 .* --load-iter"
    ):
        weights.read("a.weight")


def test_a_file_that_is_gone_or_another_one(cut):
    folder, manifest = cut
    weights = CheckpointWeights(folder, manifest, {"a.weight": (4, 3)})
    save_file({"a.weight@0,0": torch.zeros(2, 2)}, folder / "shard_00000.safetensors")
    with pytest.raises(UserError, match=r"shard_00000.safetensors does not hold a.weight@0,0 as it was written"):
        weights.read("a.weight")
    (folder / "shard_00000.safetensors").unlink()
    again = CheckpointWeights(folder, manifest, {"a.weight": (4, 3)})
    with pytest.raises(UserError, match=r"shard_00000.safetensors cannot be read"):
        again.read("a.weight")


@pytest.mark.parametrize("max_bytes", [1, 60, 10**6])
def test_a_written_checkpoint_is_one_of_ours(max_bytes, tmp_path):
    tensors = {"a.weight": torch.randn(3, 5), "b": torch.randn(4), "c": torch.randn(2, 2, 2)}
    planned = [PlannedTensor(name, "float32", tuple(tensor.shape)) for name, tensor in tensors.items()]
    written = []
    folder = write_checkpoint(
        tmp_path, CONTENTS, planned, tensors.values(), max_shard_bytes=max_bytes, advance=written.append
    )
    assert checkpoints_of(tmp_path) == [(0, folder)] and sum(written) == 4 * 27
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text() == "0\n"
    manifest = read_manifest(folder)
    assert manifest.contents == CONTENTS
    assert len(manifest.files) == {1: 3, 60: 2, 10**6: 1}[max_bytes]
    weights = CheckpointWeights(folder, manifest, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    for name, tensor in tensors.items():
        assert torch.equal(weights.read(name), tensor)
        (piece,) = manifest.tensors[name].pieces
        assert torch.equal(load_file(folder / piece.file)[piece.name], tensor)
