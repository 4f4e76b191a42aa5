"""Folders of every family become our models and come back: logits equal transformers', tensors are theirs again."""

import pytest
import torch
import transformers

from megatron.architectures.registry import ARCHITECTURES
from megatron.conversion.registry import FAMILIES
from megatron.conversion.rules import expand
from megatron.loop.setup import ModelRecipe
from tests.oracles.one_process_model import batch_of, build_decoder, random_sequences

LENGTH = 40
NO_IDS = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": None}
LLAMA = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    **NO_IDS,
}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
GPT2 = {"vocab_size": 101, "n_positions": LENGTH, "n_embd": 32, "n_layer": 2, "n_head": 4, **NO_IDS}
NEOX = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
    "use_parallel_residual": False,
    **NO_IDS,
}
CASES = {
    "llama grouped": ("llama", {**LLAMA, "tie_word_embeddings": False}),
    "llama tied, wide heads": ("llama", {**LLAMA, **ROPE, "head_dim": 12, "tie_word_embeddings": True}),
    "llama one key head": ("llama", {**LLAMA, "num_key_value_heads": 1, "vocab_size": 128, "rms_norm_eps": 1e-5}),
    "qwen2": ("qwen2", {**LLAMA, "tie_word_embeddings": False}),
    "qwen2 tied": ("qwen2", {**LLAMA, **ROPE, "num_key_value_heads": 4, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {**LLAMA, "head_dim": 16, "tie_word_embeddings": False}),
    "qwen3 tied": ("qwen3", {**LLAMA, "head_dim": 8, "tie_word_embeddings": True}),
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
    return ours


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
