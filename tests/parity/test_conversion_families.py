"""Folders of every family become our models and come back: logits equal transformers', tensors are theirs again."""

from typing import Any

import pytest
import torch
import transformers

from megatron.architectures.registry import ARCHITECTURES
from megatron.basics.errors import UserError
from megatron.conversion.registry import FAMILIES
from megatron.conversion.rules import expand
from megatron.loop.setup import ModelRecipe
from tests.oracles.one_process_model import batch_of, build_decoder, random_sequences

LENGTH = 40
IDS = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 3}
LLAMA = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    **IDS,
}
FREE_FIELDS = {"architectures", "_name_or_path"}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
GPT2 = {"vocab_size": 101, "n_positions": LENGTH, "n_embd": 32, "n_layer": 2, "n_head": 4, **IDS}
NEOX = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
    "use_parallel_residual": False,
    **IDS,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama grouped": ("llama", {**LLAMA, "tie_word_embeddings": False}),
    "llama tied, wide heads": ("llama", {**LLAMA, **ROPE, "head_dim": 12, "tie_word_embeddings": True}),
    "llama one key head": ("llama", {**LLAMA, "num_key_value_heads": 1, "vocab_size": 128, "rms_norm_eps": 1e-5}),
    "qwen2": ("qwen2", {**LLAMA, "tie_word_embeddings": False}),
    "qwen2 tied": ("qwen2", {**LLAMA, **ROPE, "num_key_value_heads": 4, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {**LLAMA, "head_dim": 16, "tie_word_embeddings": False}),
    "qwen3 tied": ("qwen3", {**LLAMA, "head_dim": 8, "tie_word_embeddings": True}),
    "gemma one key head, wide heads": ("gemma", {**LLAMA, "num_key_value_heads": 1, "head_dim": 16}),
    "gemma untied": ("gemma", {**LLAMA, **ROPE, "head_dim": 8, "tie_word_embeddings": False, "rms_norm_eps": 1e-5}),
    "gpt2": ("gpt2", GPT2),
    "gpt2 untied, narrow": (
        "gpt2",
        {**GPT2, "n_inner": 40, "activation_function": "relu", "tie_word_embeddings": False},
    ),
    "gpt_neox": ("gpt_neox", NEOX),
    "gpt_neox tied, fully rotary": (
        "gpt_neox",
        {
            **NEOX,
            "tie_word_embeddings": True,
            "hidden_act": "gelu_new",
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
        },
    ),
}


def made_by_transformers(model_type, settings):
    """A random model of theirs; its vectors too, so that nothing hides behind a zero or a one."""
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(model_type, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.1)
    return model


def ours_of(described, tensors, pairs):
    recipe = ModelRecipe(
        architecture=ARCHITECTURES[described.architecture](),
        model=described.model,
        vocabulary_size=described.vocabulary_size,
        max_positions=described.max_positions,
        seed=1,
        lengths=(LENGTH, LENGTH),
    )
    _, ours = build_decoder(recipe, backend="sdpa")
    parameters = dict(ours.named_parameters())
    for pair in pairs:
        parameters.pop(pair.ours).data.copy_(pair.to_ours(tensors))
    assert not parameters
    return ours.eval()


@pytest.mark.parametrize("case", CASES)
def test_a_folder_becomes_our_model_and_comes_back(case):
    name, settings = CASES[case]
    family = FAMILIES[name]
    theirs = made_by_transformers(family.model_type, settings)
    tensors = theirs.state_dict()
    described = family.describe(theirs.config.to_dict(), tensors)
    assert [*family.faults(described)] == []
    pairs = expand(family.rules(described), described)

    batch = batch_of(random_sequences(2, LENGTH))
    with torch.no_grad():
        got = ours_of(described, tensors, pairs)(batch).transpose(0, 1)[..., : described.vocabulary_size]
        expected = theirs(batch.tokens).logits
    assert expected.std() > 0.1
    assert torch.allclose(got, expected, rtol=1e-5, atol=1e-5)

    back = {}
    for pair in pairs:
        back |= pair.to_theirs(pair.to_ours(tensors))
        assert [tuple(back[part].shape) for part in pair.theirs] == [*pair.shapes_of_theirs()]
    for part, tensor in back.items():
        assert torch.equal(tensor, tensors[part]), part
    assert back.keys() == tensors.keys() - (family.copies.keys() - back.keys())

    config = transformers.AutoConfig.for_model(**family.config(described))
    again = family.describe(config.to_dict(), tensors)
    assert again == described
    was, now = theirs.config.to_dict(), config.to_dict()
    assert {field for field in was if was[field] != now.get(field)} <= FREE_FIELDS
    assert IDS.items() <= now.items()


PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SCALED_ROPE = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
WINDOWS = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
# family: the settings of a config that change what its class computes and that no model of ours can follow, and words
REFUSED = [
    ("llama", {"rope_parameters": SCALED_ROPE}, "rope_parameters of type linear"),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_parameters of type dynamic"),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.5}}, "rope_theta of 10000.5"),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": float("inf")}}, "rope_theta of inf"),
    ("llama", {"rope_parameters": {"full_attention": PLAIN_ROPE}}, "rope_parameters of type one for each"),
    ("llama", {"attention_bias": True}, "attention_bias True"),
    ("llama", {"mlp_bias": True}, "mlp_bias True"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    ("llama", {"is_causal": False}, "is_causal False"),
    ("qwen2", WINDOWS, "use_sliding_window True"),
    ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types sliding_attention"),
    ("qwen3", WINDOWS, "use_sliding_window True"),
    ("qwen3", {"attention_bias": True}, "attention_bias True"),
    ("gemma", {"attention_bias": True}, "attention_bias True"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention True"),
    ("gemma", {"hidden_act": "relu"}, "hidden_act 'relu'"),
    ("gemma", {"hidden_activation": "relu"}, "hidden_activation 'relu'"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights False"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention True"),
    ("gpt2", {"activation_function": "silu"}, "activation_function 'silu'"),
    ("gpt_neox", {"use_parallel_residual": True}, "use_parallel_residual True"),
    ("gpt_neox", {"attention_bias": False}, "attention_bias False"),
    ("gpt_neox", {"hidden_act": "quick_gelu"}, "hidden_act 'quick_gelu'"),
]


@pytest.mark.parametrize(
    ("name", "changes", "words"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_changes_the_function_is_refused_by_its_field(name, changes, words):
    settings = {"gpt2": GPT2, "gpt_neox": NEOX}.get(name, LLAMA)
    config = transformers.AutoConfig.for_model(name, **{**settings, **changes})
    with pytest.raises(UserError, match=f"config.json: .*{words}"):
        FAMILIES[name].describe(config.to_dict(), ())
    FAMILIES[name].describe(transformers.AutoConfig.for_model(name, **settings).to_dict(), ())


def test_a_config_with_more_layers_than_memory_has_room_for():
    config = transformers.AutoConfig.for_model("llama", **{**LLAMA, "num_hidden_layers": 10**12})
    with pytest.raises(UserError, match=r"config.json: 1000000000000 layers are more than the 10000 that can be"):
        FAMILIES["llama"].describe(config.to_dict(), ())


def test_of_several_end_tokens_the_first_counts():
    config = transformers.AutoConfig.for_model("llama", **{**LLAMA, "eos_token_id": [7, 9]})
    assert FAMILIES["llama"].describe(config.to_dict(), ()).end_token == 7
