"""Weights by formula against those of the real models, tensor by tensor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.shapes import ModelShape
from megatron.architectures.weights import count_parameters, stage_weights
from megatron.layout.options import LayoutOptions
from megatron.modeling.options import ACTIVATIONS, POSITION_EMBEDDINGS, ModelOptions
from tests.oracles.one_process_model import build_decoder, recipe_of

VOCABULARY, INPUTS, TARGETS = 100, 24, 12
# d_model 4096, 64 heads of 64, d_ff 10240, 24 layers, 32,128 rows: Wang et al. 2022, as their configuration files say.
STUDY = {
    "num_layers": 24,
    "hidden_size": 4096,
    "ffn_hidden_size": 10240,
    "num_attention_heads": 64,
    "position_embedding_type": "relative",
    "normalization": "RMSNorm",
    "activation": "geglu_tanh",
    "disable_bias_linear": True,
}


def shape_of(
    architecture: str, model: dict, *, vocabulary_size: int = VOCABULARY, lengths=(INPUTS, TARGETS)
) -> ModelShape:
    return ModelShape(
        architecture=ARCHITECTURES[architecture](),
        model=ModelOptions(**model),
        vocabulary_size=vocabulary_size,
        max_positions=max(lengths),
        lengths=lengths,
    )


@st.composite
def models(draw: st.DrawFn) -> dict:
    heads = draw(st.sampled_from([1, 2, 4, 6]))
    return {
        "num_layers": draw(st.integers(1, 3)),
        "hidden_size": heads * 8,
        "num_attention_heads": heads,
        "num_query_groups": draw(st.sampled_from([size for size in (1, 2, 3) if heads % size == 0])),
        "kv_channels": draw(st.sampled_from([None, 12])),
        "ffn_hidden_size": draw(st.sampled_from([None, 40])),
        "activation": draw(st.sampled_from(ACTIVATIONS)),
        "normalization": draw(st.sampled_from(["LayerNorm", "RMSNorm"])),
        "position_embedding_type": draw(st.sampled_from(POSITION_EMBEDDINGS)),
        "qk_layernorm": draw(st.booleans()),
        "apply_layernorm_1p": draw(st.booleans()),
        "disable_bias_linear": draw(st.booleans()),
        "add_qkv_bias": draw(st.booleans()),
        "untie_embeddings_and_output_weights": draw(st.booleans()),
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(deadline=None, max_examples=25)
@given(model=models(), decoder_layers=st.integers(1, 3), per_layer=st.booleans())
def test_weights_are_those_of_the_real_model_in_its_order(
    architecture: str, model: dict, decoder_layers: int, per_layer: bool
) -> None:
    from megatron.layout.initial_weights import global_names, shard_dim

    if architecture == "encoder_decoder":
        is_layered = per_layer and model["position_embedding_type"] == "relative"
        model = {**model, "decoder_num_layers": decoder_layers, "relative_bias_per_layer": is_layered}
    shape = shape_of(architecture, model)
    recipe = recipe_of(model, max_positions=INPUTS, architecture=architecture, lengths=shape.lengths)
    _, chunk = build_decoder(recipe)
    expected = [(name, tuple(p.shape), shard_dim(p) is not None) for name, p in global_names(chunk)]
    weights = [*stage_weights(shape, shape.whole())]
    assert [(weight.name, weight.shape, weight.is_cut) for weight in weights] == expected
    tables = sum(p.numel() for n, p in chunk.named_parameters() if "embeddings" in n or n.startswith("output_layer"))
    count = count_parameters(shape)
    assert count.total == sum(parameter.numel() for parameter in chunk.parameters())
    assert count.non_embedding == count.total - tables


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        ("causal_decoder", 4_762_357_760),
        ("prefix_decoder", 4_762_357_760),
        ("encoder_decoder", 11_003_736_064),  # the header comment of bigscience/gins/enc_dec_xxl.gin
    ],
)
def test_the_models_of_the_study(architecture: str, parameters: int) -> None:
    shape = shape_of(architecture, STUDY, vocabulary_size=32100, lengths=(626, 626))
    assert shape.padded_vocabulary_size == 32128
    assert count_parameters(shape).total == parameters


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("stages", [2, 3])
def test_stages_hold_every_weight_once_and_copies_of_what_they_share(architecture: str, stages: int) -> None:
    shape = shape_of(architecture, {**STUDY, "num_layers": 6}, vocabulary_size=1000)
    layout = LayoutOptions(pipeline_model_parallel_size=stages)
    held = [weight for stage in shape.stages(layout) for weight in stage_weights(shape, stage)]
    originals = [(weight.name, weight.shape) for weight in held if not weight.is_copy]
    whole = [(weight.name, weight.shape) for weight in stage_weights(shape, shape.whole())]
    assert sorted(originals) == sorted(whole)
    copies = {weight.name for weight in held if weight.is_copy}
    assert "output_layer.weight" in copies
    assert copies - {"output_layer.weight"} <= {"encoder.relative_bias.weight", "decoder.relative_bias.weight"}


def test_gpt3_has_174_6_billion_parameters() -> None:
    # Brown et al. 2020, table D.1.
    model = {"num_layers": 96, "hidden_size": 12288, "num_attention_heads": 96}
    shape = shape_of("causal_decoder", model, vocabulary_size=50257, lengths=(2048, 0))
    assert count_parameters(shape).total == pytest.approx(174.6e9, rel=2e-3)
