"""A model goes to the first class of transformers that holds it; what none holds is refused with every reason."""

from dataclasses import replace

import pytest

from megatron.basics.errors import UserError
from megatron.conversion.choose_family import family_for
from megatron.conversion.described_model import DescribedModel
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
    ],
)
def test_the_first_class_that_holds_it(model, family):
    choice = family_for(described(**model), None)
    assert choice.family.name == family and choice.described == described(**model) and not choice.reads_causally


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
    for family in ("llama", "qwen2", "qwen3", "gpt2", "gpt_neox"):
        assert any(
            fault.startswith(f"--family {family} has no --position-embedding-type alibi") for fault in reasons
        ), family
    assert way == (
        "no class of transformers holds this model; --family triarch_decoder does, with a modelling file of its own."
    )
    assert family_for(model, "triarch_decoder").family.name == "triarch_decoder"


def test_a_family_that_is_not_known():
    with pytest.raises(UserError, match=r"--family lama is not known; did you mean llama\?"):
        family_for(described(**LLAMA), "lama")
    with pytest.raises(UserError, match="--family llama holds causal_decoder, and this is a encoder_decoder"):
        family_for(described("encoder_decoder", **LLAMA), "llama")
