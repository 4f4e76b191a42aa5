"""Folders of transformers are read as transformers reads them; what is wrong with one is told, all of it, by name."""

import json
import os
import pickle
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from megatron.basics.errors import UserError
from megatron.conversion.hf_folder import HfFolder

SIZES = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    """As save_pretrained writes it: in one file, and in several."""
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder / "single")
    model.save_pretrained(folder / "sharded", max_shard_size="40KB")
    assert len(list((folder / "sharded").glob("*.safetensors"))) > 2
    return folder


@pytest.fixture
def sharded(saved, tmp_path):
    """A copy to break."""
    shutil.copytree(saved / "sharded", tmp_path / "folder")
    return tmp_path / "folder"


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_every_tensor_of_save_pretrained(kind, saved, model):
    folder = HfFolder.open(saved / kind)
    expected = model.state_dict()
    assert folder.tensors.keys() == expected.keys() and folder.config["model_type"] == "llama"
    for name, tensor in expected.items():
        assert torch.equal(folder.read(name), tensor)
        assert folder.tensors[name].shape == tuple(tensor.shape) and folder.tensors[name].dtype == "float32"


@pytest.mark.parametrize("is_archive", [True, False])
def test_pickles_of_nothing_but_tensors(is_archive, model, saved, tmp_path):
    shutil.copy(saved / "single" / "config.json", tmp_path)
    tensors = dict(model.state_dict())
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=is_archive)
    folder = HfFolder.open(tmp_path)
    assert folder.tensors.keys() == tensors.keys()
    assert all(torch.equal(folder.read(name), tensor) for name, tensor in tensors.items())


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_that_would_run_code_does_not(saved, tmp_path):
    shutil.copy(saved / "single" / "config.json", tmp_path)
    for content in ({"w": torch.zeros(1), "x": Payload(tmp_path / "ran")}, Payload(tmp_path / "ran")):
        torch.save(content, tmp_path / "pytorch_model.bin")
        with pytest.raises(
            UserError, match=r"is a pickle of more than tensors, which could run any code, .*; save it as safe"
        ):
            HfFolder.open(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (pickle.dumps({"w": 3}), "is a pickle of more than tensors"),
        (b"", "cannot be read"),
        (b"PK\x03\x04 nonsense", "cannot be read|is a pickle"),
    ],
)
def test_other_pickles(content, sentence, saved, tmp_path):
    shutil.copy(saved / "single" / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        HfFolder.open(tmp_path)


def test_a_state_dict_with_something_else_in_it(saved, tmp_path):
    shutil.copy(saved / "single" / "config.json", tmp_path)
    for content, sentence in (({"w": 3}, "holds w, which is no tensor"), ([1], "holds no state dict")):
        torch.save(content, tmp_path / "pytorch_model.bin")
        with pytest.raises(UserError, match=sentence):
            HfFolder.open(tmp_path)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(3).to_sparse(),
        torch.eye(3).to_sparse_csr(),
        torch.empty(3, device="meta"),
        torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
    ],
    ids=["sparse", "rows", "meta", "quantized"],
)
@pytest.mark.parametrize("is_archive", [True, False])
def test_tensors_that_are_not_plain_numbers(is_archive, tensor, saved, tmp_path):
    shutil.copy(saved / "single" / "config.json", tmp_path)
    torch.save({"w": tensor}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=is_archive)
    with pytest.raises(UserError, match="holds w, which is sparse, quantized or without numbers; save it as"):
        HfFolder.open(tmp_path)


def refusal(folder):
    with pytest.raises(UserError) as raised:
        HfFolder.open(folder)
    return raised.value.faults


def index_of(folder):
    return json.loads((folder / INDEX).read_text())


def change_index(folder, **changes):
    content = index_of(folder)
    (folder / INDEX).write_text(json.dumps({**content, **changes}))


def test_a_shard_that_is_missing(sharded):
    first, second, *_ = sorted(sharded.glob("model-*.safetensors"))
    first.unlink()
    second.unlink()
    assert refusal(sharded) == tuple(
        f"{path} is missing, and {INDEX} names it; download or save the folder again." for path in (first, second)
    )


def test_a_shard_that_is_cut_off(sharded):
    first = min(sharded.glob("model-*.safetensors"))
    first.write_bytes(first.read_bytes()[:-4])
    (fault,) = refusal(sharded)
    assert fault.startswith(f"{first} cannot be read (") and fault.endswith("download or save it again.")


def test_an_index_that_disagrees_with_its_shards(sharded):
    weight_map = index_of(sharded)["weight_map"]
    files = sorted(set(weight_map.values()))
    moved, left_out = [name for name, file in weight_map.items() if file == files[0]][:1] + [
        name for name, file in weight_map.items() if file == files[1]
    ][:1]
    change_index(
        sharded,
        weight_map={
            **{name: file for name, file in weight_map.items() if name != left_out},
            moved: files[2],
            "no.such.weight": files[0],
        },
    )
    again = "download or save the folder again."
    assert set(refusal(sharded)) == {
        f"{INDEX} says that {moved} is in {files[2]}, but it stands in {files[0]}; {again}",
        f"{INDEX} says that no.such.weight is in {files[0]}, but no file has it; {again}",
        f"{files[1]} has {left_out}, of which {INDEX} says nothing; {again}",
    }


def test_a_tensor_in_two_shards(sharded):
    weight_map = index_of(sharded)["weight_map"]
    name, file = next(iter(weight_map.items()))
    other = next(other for other in weight_map.values() if other != file)
    save_file({**load_file(sharded / other), name: torch.zeros(1)}, sharded / other)
    assert any(fault.startswith(f"{name} stands in ") and "download" in fault for fault in refusal(sharded))


def test_an_index_with_another_size(sharded):
    change_index(sharded, metadata={"total_size": 12})
    (fault,) = refusal(sharded)
    assert "says that its files hold 12 bytes of tensors, and they hold" in fault


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "evil.pkl"])
def test_an_index_cannot_lead_out_of_its_folder(name, sharded):
    weight_map = index_of(sharded)["weight_map"]
    change_index(sharded, weight_map={**weight_map, "x": name})
    assert refusal(sharded) == (f"{sharded / INDEX} names a file outside of its folder: {name}.",)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": {"a": 3}}', "[" * 100_000])
def test_an_index_that_is_none(content, sharded):
    (sharded / INDEX).write_text(content)
    (fault,) = refusal(sharded)
    assert fault.startswith(str(sharded / INDEX))


def test_only_the_first_of_many_faults_are_told(sharded):
    change_index(sharded, weight_map=dict.fromkeys(index_of(sharded)["weight_map"], min(sharded.glob("model-*")).name))
    faults = refusal(sharded)
    assert len(faults) == 6 and faults[-1].startswith("... and ") and faults[-1].endswith("more like the last one.")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "has no config.json; give a folder that save_pretrained wrote"),
        ("{", "config.json cannot be read"),
        ("[]", "config.json is not a JSON object"),
        ("{}", "does not say its model_type"),
        ('{"model_type": "llama", "quantization_config": {"bits": 4}}', "quantized weights cannot be converted"),
        ('{"model_type": "llama"}', "has no weights (model.safetensors, pytorch_model.bin, or"),
    ],
)
def test_folders_that_hold_no_model(content, sentence, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    (fault,) = refusal(tmp_path)
    assert sentence in fault and fault.startswith(str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", INDEX, "tokenizer_config.json", "tokenizer.json"])
def test_a_file_that_is_larger_than_any_of_its_kind(name, sharded):
    with (sharded / name).open("a"):
        os.truncate(sharded / name, 10**10)  # a hole, which takes no room on the disk
    (fault,) = refusal(sharded)
    most = "1 GB" if name == "tokenizer.json" else "0.1 GB"
    assert fault == f"{sharded / name} has 10 GB, and at most {most} of its kind are read; download or save it again."


def test_an_adapter_is_not_left_out_without_a_word(sharded):
    """transformers would load it on top of the weights, where peft is installed."""
    (sharded / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (fault,) = refusal(sharded)
    assert fault.startswith(f"{sharded} holds an adapter (adapter_config.json), ") and "merge_and_unload" in fault


def test_weights_that_stand_there_twice(sharded, saved):
    shutil.copy(saved / "single" / "model.safetensors", sharded)
    assert refusal(sharded) == (f"{sharded} holds model.safetensors and {INDEX}; remove the one that is not meant.",)
