"""A model goes to the first class of transformers that holds it; what none holds is refused with every reason."""

from dataclasses import replace

import pytest

from megatron.basics.errors import UserError
from megatron.conversion.choose_family import family_for, family_of
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.registry import FAMILIES
from megatron.modeling.options import ModelOptions

SIZES = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
LLAMA = {
    **SIZES,
    "normalization": "RMSNorm",
    "activation": "swiglu",
    "position_embedding_type": "rope",
    "disable_bias_linear": True,
}


def described(architecture="causal_decoder", **model):
    return DescribedModel(architecture=architecture, model=ModelOptions(**model), vocabulary_size=101, max_positions=40)


@pytest.mark.parametrize(
    ("model", "family"),
    [
        (SIZES, "gpt2"),
        (LLAMA, "llama"),
        ({**LLAMA, "add_qkv_bias": True}, "qwen2"),
        ({**LLAMA, "qk_layernorm": True}, "qwen3"),
        ({**SIZES, "position_embedding_type": "rope"}, "gpt_neox"),
        ({**LLAMA, "activation": "geglu_tanh", "apply_layernorm_1p": True, "scale_embeddings": True}, "gemma"),
    ],
)
def test_the_first_class_that_holds_it(model, family):
    choice = family_for(described(**model), None)
    assert choice.family.name == family and choice.described == described(**model) and not choice.reads_causally


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("vocab_size", "101", "vocab_size '101' is not a whole number from 1 to"),
        ("vocab_size", None, "vocab_size None is not a whole number"),
        ("num_hidden_layers", 2.0, "num_hidden_layers 2.0 is not a whole number"),
        ("max_position_embeddings", True, "max_position_embeddings True is not a whole number"),
        ("num_key_value_heads", "4", "num_key_value_heads '4' is not a whole number"),
        ("norm_epsilon", "1e-5", "norm_epsilon '1e-5' is not a number"),
        ("softmax_scale", [1], "softmax_scale [1] is not a number"),
        ("qk_layernorm", "false", "qk_layernorm 'false' is not true or false"),
        ("tie_word_embeddings", "false", "tie_word_embeddings 'false' is not true or false"),
        ("eos_token_id", [1, "2"], "eos_token_id [1, '2'] is neither the id of a token nor a list of them"),
    ],
)
def test_our_own_configs_are_typed(name, value, sentence):
    family = FAMILIES["triarch_decoder"]
    config = family.config(described(**SIZES))
    assert family.describe(config, ()).vocabulary_size == 101
    with pytest.raises(UserError) as raised:
        family.describe({**config, name: value}, ())
    (fault,) = raised.value.faults
    assert fault.startswith(f"config.json: {sentence}")


def test_prefix_decoders_take_their_own_file_along():
    choice = family_for(described("prefix_decoder", **LLAMA), None)
    assert choice.family.name == "triarch_decoder" and choice.family.files and not choice.reads_causally


def test_a_prefix_decoder_becomes_causal_when_asked():
    model = described("prefix_decoder", **LLAMA)
    choice = family_for(model, "llama")
    assert choice.reads_causally and choice.described == replace(model, architecture="causal_decoder")
    with pytest.raises(UserError, match="--family gpt2 has no "):
        family_for(model, "gpt2")


def test_what_no_class_holds_is_refused_with_every_reason_and_the_way_out():
    model = described(**SIZES, position_embedding_type="alibi")
    with pytest.raises(UserError) as raised:
        family_for(model, None)
    *reasons, way = raised.value.faults
    for family in ("llama", "qwen2", "qwen3", "gemma", "gpt2", "gpt_neox"):
        assert any(
            fault.startswith(f"--family {family} has no --position-embedding-type alibi") for fault in reasons
        ), family
    assert way == (
        "no class of transformers holds this model; --family triarch_decoder does, with a modelling file of its own."
    )
    assert family_for(model, "triarch_decoder").family.name == "triarch_decoder"


@pytest.mark.parametrize("flag", ["--apply-layernorm-1p", "--scale-embeddings"])
def test_only_gemma_has_its_scales(flag):
    model = described(**LLAMA, **{flag[2:].replace("-", "_"): True})
    with pytest.raises(UserError) as raised:
        family_for(model, None)
    for family in ("llama", "qwen2", "qwen3", "gpt2", "gpt_neox"):
        assert f"--family {family} has no {flag}; its models have {flag} off." in raised.value.faults
    assert f"--family gemma has no {flag}" not in str(raised.value)
    assert family_for(model, "triarch_decoder").described == model


T5 = {
    **SIZES,
    "position_embedding_type": "relative",
    "normalization": "RMSNorm",
    "disable_bias_linear": True,
    "softmax_scale": 1.0,
    "activation": "relu",
    "scale_logits": True,
}


@pytest.mark.parametrize(
    ("architecture", "model", "hidden", "attention", "lost"),
    [
        ("causal_decoder", SIZES, 0.1, 0.2, []),
        ("prefix_decoder", LLAMA, 0.1, 0.2, []),
        ("causal_decoder", LLAMA, 0.0, 0.2, []),
        ("causal_decoder", LLAMA, 0.1, 0.2, ["--hidden-dropout 0.1 is not kept: a llama that is trained on has 0.0"]),
        ("encoder_decoder", T5, 0.1, 0.1, []),
        ("encoder_decoder", T5, 0.1, 0.0, ["--attention-dropout 0.0 is not kept: a t5 that is trained on has 0.1"]),
    ],
)
def test_dropout_that_a_family_cannot_say_is_told(architecture, model, hidden, attention, lost):
    choice = family_for(described(architecture, **model, hidden_dropout=hidden, attention_dropout=attention), None)
    assert [loss.removesuffix(" there.") for loss in choice.family.lost(choice.described)] == lost


def test_dropout_of_a_folder_that_a_run_cannot_say_is_told():
    choice = family_for(described(**SIZES, hidden_dropout=0.1), None)
    config = {"resid_pdrop": 0.1, "embd_pdrop": 0.3, "attn_pdrop": None}
    (remark,) = choice.family.remarks(config, choice.described)
    assert remark.startswith("config.json: embd_pdrop 0.3 becomes 0.1")
    assert not [*choice.family.remarks({}, choice.described)]


def test_a_scale_that_the_config_denies_is_told():
    """google/umt5 says tie_word_embeddings false; transformers 5 scales its logits all the same."""
    scaled = described("encoder_decoder", **T5, relative_bias_per_layer=True)
    family = family_for(scaled, None).family
    assert family.name == "umt5" and not [*family.remarks({"tie_word_embeddings": True}, scaled)]
    (remark,) = family.remarks({"tie_word_embeddings": False}, scaled)
    assert "the logits are not scaled, and transformers 5 scales them" in remark


def test_later_gemmas_are_told_from_the_first():
    caps = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": None, "sliding_window": 4096}
    with pytest.raises(UserError) as raised:
        family_of({"model_type": "gemma2", **caps}, None, "config.json")
    assert raised.value.faults == (
        "config.json: the model_type gemma2 has norms behind attention and feed-forward, and sliding windows in every "
        "second layer, and its config says sliding_window 4096, attn_logit_softcapping 50.0; no model of ours can "
        "follow that. The nearest family is gemma.",
    )
    with pytest.raises(UserError, match=r"rope_local_base_freq 10000\.0; no model .* nearest family is gemma"):
        family_of({"model_type": "gemma3", "text_config": {"rope_local_base_freq": 10000.0}}, None, "config.json")
    with pytest.raises(UserError, match="nearest family is gemma"):
        family_of({"model_type": "gemma3", "text_config": "x"}, None, "config.json")
    with pytest.raises(UserError, match=r"--family gemma is not that of config\.json, a gemma2"):
        family_of({"model_type": "gemma2"}, "gemma", "config.json")


def test_a_family_that_is_not_known():
    with pytest.raises(UserError, match=r"--family lama is not known; did you mean llama\?"):
        family_for(described(**LLAMA), "lama")
    with pytest.raises(UserError, match="--family llama holds causal_decoder, and this is an encoder_decoder"):
        family_for(described("encoder_decoder", **LLAMA), "llama")
