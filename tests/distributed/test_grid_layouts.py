"""Every legal cell of architecture and objective trains alike on every layout: losses and norms agree to rounding."""

import pytest
import test_layouts
from launch import by_layout, run_cases

from megatron.architectures.legal_pairs import legal_objectives
from megatron.architectures.registry import ARCHITECTURES

STEPS = 3
DECODER = {"position_embedding_type": "relative", "normalization": "RMSNorm", "activation": "geglu_tanh"}
MODELS = {
    "causal_decoder": {**DECODER, "position_embedding_type": "rope"},
    "prefix_decoder": {**DECODER, "softmax_scale": 1.0, "scale_logits": True, "scale_embeddings": True},
    # Three and two layers: stages hold different numbers of them, and one holds layers of both stacks.
    "encoder_decoder": {**DECODER, "encoder_num_layers": 3, "decoder_num_layers": 2, "disable_bias_linear": True},
}
HARD = ("dp4", "tp2-sp-pp2-vpp2")
ALL = (
    *("dp4", "tp2-sp", "pp2", "pp4", "pp2-vpp2", "tp2-pp2", "tp2-sp-pp2-vpp2", "pp2-vpp2-overlap"),
    *("recompute-full", "recompute-selective-pp2"),
)
LAYOUTS = {
    **test_layouts.LAYOUTS,
    "pp2-vpp2-overlap": {**test_layouts.LAYOUTS["pp2-vpp2"], **test_layouts.LAYOUTS["overlap"]},
}
CELLS = [(architecture, objective) for architecture in ARCHITECTURES for objective in legal_objectives(architecture)]
VARIANTS = {
    **{f"{architecture}:{objective}": {"model": MODELS[architecture]} for architecture, objective in CELLS},
    # Modern parts in an encoder-decoder: rotary positions, grouped keys, two tables of words, Gemma's norms and scale.
    "encoder_decoder:span_corruption modern": {
        "model": {
            **MODELS["encoder_decoder"],
            "position_embedding_type": "rope",
            "num_query_groups": 2,
            "untie_embeddings_and_output_weights": True,
            "qk_layernorm": True,
            "apply_layernorm_1p": True,
            "scale_embeddings": True,
        }
    },
    # UMT5's: a table of distances in each layer, which no two stages share.
    "encoder_decoder:span_corruption layered": {
        "model": {**MODELS["encoder_decoder"], "relative_bias_per_layer": True}
    },
    # The study's optimizer, with moments that are factored and a tied table on two stages.
    "encoder_decoder:span_corruption adafactor": {
        "model": {
            **MODELS["encoder_decoder"],
            "hidden_size": 128,
            "kv_channels": 64,
            "ffn_hidden_size": 192,
            "init_method": "t5",
            "softmax_scale": 1.0,
            "scale_logits": True,
        },
        "optimizer": {"optimizer": "adafactor", "lr": 0.01},
    },
}


def layouts_of(variant):
    return ALL if variant == "encoder_decoder:span_corruption" else HARD


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    cases = []
    for variant, changed in VARIANTS.items():
        architecture, objective = variant.split()[0].split(":")
        common = {"architecture": architecture, "objective": objective, "backend": "fused_softmax", "steps": STEPS}
        for layout in layouts_of(variant):
            cases.append({"name": f"{variant} {layout}", "layout": LAYOUTS[layout], **common, **changed})
    return run_cases(tmp_path_factory.mktemp("grid"), by_layout(cases))


@pytest.mark.parametrize("variant", VARIANTS)
def test_layout_does_not_change_the_loss(variant, results):
    expected = results[f"{variant} dp4"]
    assert len(expected["losses"]) == STEPS and min(expected["losses"]) > 0
    assert len(set(expected["losses"])) == STEPS
    for layout in layouts_of(variant)[1:]:
        got = results[f"{variant} {layout}"]
        assert got["losses"] == pytest.approx(expected["losses"], rel=1e-5), layout
        assert got["norms"] == pytest.approx(expected["norms"], rel=5e-5), layout
