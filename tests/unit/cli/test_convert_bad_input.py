"""from-hf of folders that are broken, hostile or of another kind: a sentence, exit code 2, and nothing written."""

import json
import pickle

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from megatron.basics.errors import exit_on_user_error
from megatron.cli.convert import main

SIZES = {
    "vocab_size": 101,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 24,
    "tie_word_embeddings": False,
}
INDEX = "model.safetensors.index.json"
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(1)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).save_pretrained(
        tmp_path / "theirs", max_shard_size="10KB"
    )
    return tmp_path / "theirs"


def shard_of(folder, name):
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][name]


def change(folder, name, edit):
    """Edit the tensors of the shard that holds `name`, and the index with them."""
    path = shard_of(folder, name)
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    index = json.loads((folder / INDEX).read_text())
    kept = {tensor: file for tensor, file in index["weight_map"].items() if file != path.name}
    size = sum(tensor.nbytes for file in folder.glob("*.safetensors") for tensor in load_file(file).values())
    content = {"metadata": {"total_size": size}, "weight_map": {**kept, **dict.fromkeys(tensors, path.name)}}
    (folder / INDEX).write_text(json.dumps(content))


def missing(folder):
    change(folder, UP, lambda tensors: tensors.pop(UP))
    return f"{folder} has no tensor {UP} [24, 16]; download or save it again."


def extra(folder):
    change(folder, UP, lambda tensors: tensors.update({"score.weight": torch.zeros(3, 3)}))
    return f"{folder} has the tensor score.weight, which LlamaForCausalLM has not; it cannot be kept."


def misnamed(folder):
    other = UP.replace("up_proj", "up_projection")
    change(folder, UP, lambda tensors: tensors.update({other: tensors.pop(UP)}))
    return f"{folder} has no tensor {UP}, but {other} of its shape; rename that one."


def misshapen(folder):
    change(folder, UP, lambda tensors: tensors.update({UP: torch.zeros(24, 15)}))
    return f"{folder}: {UP} is [24, 15], and by config.json [24, 16]; one of them belongs to another model."


def index_disagrees(folder):
    index = json.loads((folder / INDEX).read_text())
    there = index["weight_map"][UP]
    other = next(file for file in index["weight_map"].values() if file != there)
    index["weight_map"][UP] = other
    (folder / INDEX).write_text(json.dumps(index))
    return f"{INDEX} says that {UP} is in {other}, but it stands in {there}; download or save the folder again."


def cut_off(folder):
    path = shard_of(folder, UP)
    path.write_bytes(path.read_bytes()[:-9])
    return f"{path} "


def unknown_family(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llamma"}))
    return f"{folder / 'config.json'}: the model_type llamma is not known; did you mean llama? Known: llama, "


def no_tokenizer(folder):
    return f"--load {folder} holds no tokenizer; give --tokenizer-type and --tokenizer-model of the one that "


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def pickled(folder):
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"w": Payload(folder.parent / "ran")}))
    return f"{folder / 'pytorch_model.bin'} is a pickle of more than tensors"


@pytest.mark.parametrize(
    "breaks",
    [missing, extra, misnamed, misshapen, index_disagrees, cut_off, unknown_family, no_tokenizer, pickled],
    ids=lambda function: function.__name__,
)
def test_a_sentence_and_exit_code_2(breaks, folder, tmp_path, capsys):
    sentence = breaks(folder)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as ended:
        exit_on_user_error(lambda: main(["from-hf", "--load", str(folder), "--save", str(tmp_path / "run")]))
    said = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert [line for line in said if line.startswith(f"error: {sentence}")], said
    assert sorted(tmp_path.iterdir()) == before and not (tmp_path / "ran").exists()
