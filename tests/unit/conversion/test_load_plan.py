"""What a folder must hold for its family: every tensor by its name and shape, none besides, equal copies."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from megatron.basics.errors import UserError
from megatron.conversion.load import plan_import
from megatron.conversion.provenance import Provenance

LLAMA = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
GPT2 = {"vocab_size": 101, "n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 4}
ENTRY = {
    "architecture": "causal_decoder",
    "objective": "full_lm",
    "iteration": 3,
    "lineage": [{"architecture": "causal_decoder", "objective": "full_lm", "tokens": 9, "loss_tokens": 9}],
    "seq_length": 40,
    "decoder_seq_length": None,
    "begin_with_start_token": True,
}
STAGE = ENTRY["lineage"][0]
PROJECTION = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def llama(tmp_path):
    torch.manual_seed(1)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).save_pretrained(tmp_path)
    return tmp_path


def change(folder, edit):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def set_config(folder, **fields):
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in content.items() if value != "gone"}))


def faults_of(folder, **settings):
    with pytest.raises(UserError) as raised:
        plan_import(folder, **{"family": None, "dtype": None, **settings})
    return raised.value.faults


def test_a_sound_folder(llama):
    plan = plan_import(llama, family=None, dtype=None)
    assert plan.family.name == "llama" and plan.described.vocabulary_size == 101 and plan.provenance is None
    assert plan.size == sum(tensor.nbytes for tensor in plan.planned())
    assert {tensor.name: tensor.shape for tensor in plan.planned()} == plan.described.weights()


@pytest.mark.parametrize("ends_inputs", [None, False, True])
def test_what_an_export_says_of_its_texts_comes_back(llama, ends_inputs):
    """None: of a folder that was written before inputs could go without an end token."""
    set_config(llama, triarch={**ENTRY, **({} if ends_inputs is None else {"ends_inputs": ends_inputs})})
    described = plan_import(llama, family=None, dtype=None).described
    assert described.begins_with_start_token and described.ends_inputs == (ends_inputs is not False)


def test_tensors_that_are_missing_misnamed_misshapen_and_too_many(llama):
    renamed = PROJECTION.replace("up_proj", "up_projection")

    def edit(tensors):
        tensors[renamed] = tensors.pop(PROJECTION)
        del tensors["model.norm.weight"]
        tensors["score.weight"] = torch.zeros(2, 32)
        tensors["model.embed_tokens.weight"] = torch.zeros(100, 32)

    change(llama, edit)
    assert set(faults_of(llama)) == {
        f"{llama} has no tensor {PROJECTION}, but {renamed} of its shape; rename that one.",
        f"{llama} has no tensor model.norm.weight [32]; download or save it again.",
        f"{llama} has the tensor score.weight, which LlamaForCausalLM has not; it cannot be kept.",
        f"{llama}: model.embed_tokens.weight is [100, 32], and by config.json [101, 32]; one of them belongs to "
        "another model.",
    }


def test_many_faults_of_a_kind_are_counted(llama):
    set_config(llama, num_hidden_layers=200)
    faults = faults_of(llama)
    assert len(faults) == 6 and faults[-1] == "... and 1777 more like the last one."


@pytest.mark.parametrize("has_head", [False, True])
def test_folders_that_were_saved_from_inside_the_model(has_head, tmp_path):
    """As openai-community/gpt2 stands on the hub: no `transformer.`, masks among the tensors, a copy of the table."""
    torch.manual_seed(1)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    model.save_pretrained(tmp_path)

    def edit(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 40, 40)
        if has_head:
            tensors["lm_head.weight"] = tensors["wte.weight"].clone()

    change(tmp_path, edit)
    plan = plan_import(tmp_path, family=None, dtype=None)
    assert plan.matching.names["transformer.wte.weight"] == "wte.weight"
    ours = dict(zip((tensor.name for tensor in plan.planned()), plan.tensors(), strict=True))
    assert torch.equal(ours["embedding.word_embeddings.weight"][:101], model.transformer.wte.weight)


def test_a_head_that_is_tied_and_differs(tmp_path):
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)).save_pretrained(tmp_path)

    def edit(tensors):
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1

    change(tmp_path, edit)
    (fault,) = faults_of(tmp_path)
    assert fault.startswith(f"{tmp_path}: lm_head.weight differs from transformer.wte.weight, and by config.json")


def test_one_tensor_under_two_names(tmp_path):
    settings = {**LLAMA, "use_parallel_residual": False}
    transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**settings)).save_pretrained(tmp_path)
    change(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors["embed_out.weight"].clone()}))
    (fault,) = faults_of(tmp_path)
    assert "which are the same tensor; remove one" in fault and "embed_out.weight" in fault


def test_precisions(llama):
    change(llama, lambda tensors: tensors.update({PROJECTION: tensors[PROJECTION].bfloat16()}))
    (fault,) = faults_of(llama)
    assert "holds weights of several kinds" in fault and f"{PROJECTION} in bfloat16" in fault
    assert fault.endswith("choose one with --dtype.")
    plan = plan_import(llama, family=None, dtype="bfloat16")
    assert plan.described.dtype == "bfloat16" and plan.size == 2 * sum(part.numel() for part in plan.tensors())
    change(llama, lambda tensors: tensors.update({PROJECTION: tensors[PROJECTION].to(torch.int8)}))
    assert "is in I8; quantized weights cannot be converted" in faults_of(llama)[0]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model_type": "lama"}, "the model_type lama is not known; did you mean llama? Known: llama, qwen2"),
        ({"attention_bias": True}, "config.json: attention_bias True has no counterpart"),
        ({"hidden_size": "wide"}, "config.json"),
        ({"num_attention_heads": 5}, "config.json"),
        ({"num_key_value_heads": 3}, "config.json"),
        ({"vocab_size": None}, "config.json"),
        ({"vocab_size": 10**19}, "config.json: vocab_size 10000000000000000000 is not a whole number from 1 to 1000"),
        ({"vocab_size": 0}, "config.json: vocab_size 0 is not a whole number from 1 to"),
        ({"vocab_size": 10**12, "hidden_size": 10**9}, "embedding.word_embeddings.weight is [1000000000000, 1000000"),
        ({"vocab_size": 10**12}, "model.embed_tokens.weight is [101, 32], and by config.json [1000000000000, 32]"),
        ({"max_position_embeddings": -1}, "config.json: max_position_embeddings -1 is not a whole number from 1 to"),
        ({"num_attention_heads": 0}, "config.json"),
        ({"model_type": "qwen2", "num_hidden_layers": 10**12}, "config.json: 1000000000000 layers are more than the"),
        ({"num_labels": 10**12}, "config.json: 1000000000000 labels are more than the 10000 that can be converted."),
        ({"rope_parameters": "x"}, "config.json"),
        ({"rms_norm_eps": float("nan")}, "config.json: --norm-epsilon nan must be a finite number."),
        ({"triarch": {"lineage": 3}}, "config.json: the entry triarch is not as an export wrote it"),
        ({"triarch": "x"}, "config.json: the entry triarch is not as an export wrote it"),
        ({"triarch": {**ENTRY, "seq_length": "40"}}, "config.json: the entry triarch is not as an export wrote it"),
    ],
)
def test_configs_that_are_not_followed(fields, sentence, llama):
    set_config(llama, **fields)
    faults = faults_of(llama)
    assert sentence in faults[0]


@pytest.mark.parametrize(
    "changed",
    [
        {"objective": "full_lm |"},
        {"architecture": ["causal_decoder"]},
        {"iteration": True},
        {"seq_length": 0},
        {"decoder_seq_length": -1},
        {"ends_inputs": 1},
        {"lineage": [{**STAGE, "tokens": True}]},
        {"lineage": [{**STAGE, "loss_tokens": -9}]},
        {"lineage": [{**STAGE, "objective": "<img src=x>"}]},
        {"lineage": [{**STAGE, "imported": "\x1b[2J"}]},
        {"lineage": [{**STAGE, "imported": 3}]},
        {"lineage": ["full_lm"]},
    ],
)
def test_a_past_that_no_export_wrote(changed):
    assert Provenance.of_config({"triarch": ENTRY}) is not None
    with pytest.raises(UserError, match="the entry triarch is not as an export wrote it; remove the entry"):
        Provenance.of_config({"triarch": {**ENTRY, **changed}})


def test_the_family_is_that_of_the_config(llama):
    assert faults_of(llama, family="gpt2") == (
        f"--family gpt2 is not that of {llama}/config.json, a llama; leave the flag out, or use llama.",
    )
    assert plan_import(llama, family="llama", dtype=None).family.name == "llama"
    set_config(llama, model_type="mamba")
    assert "--family llama is not that of" in faults_of(llama, family="llama")[0]
