"""Small models of every kind and the commands that convert, verify and spoil their folders."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from megatron.basics.errors import RunFault, UserError
from megatron.cli.convert import main
from megatron.conversion.modeling_files import modeling_triarch
from megatron.conversion.registry import FAMILIES

LENGTH = 20
WORDS = 270
IDS = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    **IDS,
}
LEARNED = {"decoder_type": "prefix_decoder", "bidirectional_prompts": True, "head_dim": 8, "initializer_range": 0.3}
T5 = {"vocab_size": WORDS, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "n_positions": LENGTH}
KINDS = ("causal", "prefix", "encoder-decoder")


def model_of(kind):
    if kind == "causal":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=False))
    elif kind == "prefix":
        model = modeling_triarch.TriarchForCausalLM(modeling_triarch.TriarchConfig(**SIZES, **LEARNED))
    else:
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(**T5, decoder_start_token_id=0))
    torch.manual_seed(3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.3)
    return model


def add_our_code(folder):
    family = FAMILIES["triarch_decoder"]
    classes = {"AutoConfig": "TriarchConfig", "AutoModelForCausalLM": "TriarchForCausalLM"}
    change_config(folder, auto_map={auto: f"modeling_triarch.{name}" for auto, name in classes.items()})
    for name, text in family.files.items():
        (folder / name).write_text(text)


def change_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def convert(direction, load, save, *words):
    main([direction, "--load", str(load), "--save", str(save), *words])


def verify(run, folder, *words):
    main(["verify", "--load", str(run), "--hf", str(folder), *words])


def verdict_of(folder):
    return json.loads((folder / "verdict.json").read_text())


def failure(run, folder, *words):
    with pytest.raises(RunFault) as raised:
        verify(run, folder, *words)
    return str(raised.value)


def changed_tensor(folder, name, change):
    (path,) = [path for path in folder.glob("*.safetensors") if name in load_file(path)]
    tensors = load_file(path)
    change(tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})


def refusal(*words):
    with pytest.raises(UserError) as raised:
        main([*map(str, words)])
    return "\n".join(raised.value.faults)
