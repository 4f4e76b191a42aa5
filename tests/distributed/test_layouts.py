"""The layout changes speed and memory and nothing else: losses and gradient norms agree to rounding."""

import pytest
from launch import by_layout, run_cases

STEPS = 4
LAYOUTS = {
    "dp4": {},
    "tp2": {"tensor_model_parallel_size": 2},
    "tp2-sp": {"tensor_model_parallel_size": 2, "sequence_parallel": True},
    "tp4": {"tensor_model_parallel_size": 4},
    "pp2": {"pipeline_model_parallel_size": 2},
    "pp4": {"pipeline_model_parallel_size": 4},
    "pp2-vpp2": {"pipeline_model_parallel_size": 2, "num_virtual_stages_per_pipeline_rank": 2},
    "pp2-uneven": {"pipeline_model_parallel_size": 2, "decoder_first_pipeline_num_layers": 3},
    "tp2-pp2": {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2},
    "tp2-sp-pp2-vpp2": {
        "tensor_model_parallel_size": 2,
        "pipeline_model_parallel_size": 2,
        "num_virtual_stages_per_pipeline_rank": 2,
        "sequence_parallel": True,
    },
    "overlap": {"overlap_grad_reduce": True, "overlap_param_gather": True},
    "recompute-full": {"recompute_granularity": "full"},
    "recompute-block-tp2": {
        "recompute_granularity": "full",
        "recompute_method": "block",
        "recompute_num_layers": 2,
        "tensor_model_parallel_size": 2,
    },
    "recompute-selective-pp2": {"recompute_granularity": "selective", "pipeline_model_parallel_size": 2},
}
VARIANTS = {
    "gpt2": {"model": {}},
    "llama": {
        "model": {
            "normalization": "RMSNorm",
            "activation": "swiglu",
            "num_query_groups": 2,
            "position_embedding_type": "rope",
            "disable_bias_linear": True,
            "untie_embeddings_and_output_weights": True,
            "qk_layernorm": True,
        },
        "optimizer": {"z_loss_coeff": 1e-3},
        "reset_documents": True,
        "backend": "fused_softmax",
    },
    "t5-positions": {
        "model": {"position_embedding_type": "relative", "activation": "geglu"},
        "backend": "fused_softmax",
    },
    "alibi": {"model": {"position_embedding_type": "alibi", "activation": "relu"}, "reset_documents": True},
    # Matrices of more than 128 rows and columns, so that moments are factored: whole, and each projection by itself.
    "adafactor": {
        "model": {
            "num_layers": 4,
            "hidden_size": 128,
            "num_attention_heads": 4,
            "kv_channels": 64,
            "num_query_groups": 2,
            "ffn_hidden_size": 160,
            "position_embedding_type": "relative",
            "activation": "geglu",
            "init_method": "t5",
            "softmax_scale": 1.0,
            "scale_logits": True,
        },
        "optimizer": {"optimizer": "adafactor", "lr": 0.01, "z_loss_coeff": 1e-4},
        "backend": "fused_softmax",
    },
}
SOME_LAYOUTS = ("dp4", "tp2-pp2", "tp2-sp-pp2-vpp2", "recompute-full")


def layouts_of(variant):
    # tp4 cannot share two key and value heads, and is tried with gpt2 alone
    return LAYOUTS if variant == "gpt2" else {name: LAYOUTS[name] for name in SOME_LAYOUTS}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    cases = []
    for variant, changed in VARIANTS.items():
        for name, layout in layouts_of(variant).items():
            cases.append({"name": f"{variant} {name}", "layout": layout, "steps": STEPS, **changed})
        cases.append(
            {"name": f"{variant} micro-batch-1", "layout": {}, "micro_batch_size": 1, "steps": STEPS, **changed}
        )
    return run_cases(tmp_path_factory.mktemp("layouts"), by_layout(cases))


@pytest.mark.parametrize("variant", VARIANTS)
def test_layout_does_not_change_the_loss(variant, results):
    expected = results[f"{variant} dp4"]
    assert len(expected["losses"]) == STEPS
    assert min(expected["losses"]) > 0 and expected["losses"][0] != expected["losses"][-1]
    for name in (*layouts_of(variant), "micro-batch-1"):
        got = results[f"{variant} {name}"]
        assert got["losses"] == pytest.approx(expected["losses"], rel=1e-5), name
        # Adam divides tiny gradients by their own size, so that rounding shows in the norms of later steps first.
        assert got["norms"] == pytest.approx(expected["norms"], rel=5e-5), name


def test_one_process_agrees_with_four(tmp_path_factory):
    """DP4 is the reference above; here it meets a process that has no peers at all."""
    four = run_cases(tmp_path_factory.mktemp("four"), [{"name": "run", "steps": 5}])
    one = run_cases(tmp_path_factory.mktemp("one"), [{"name": "run", "steps": 5}], ranks=1)
    assert one["run"]["losses"] == pytest.approx(four["run"]["losses"], rel=1e-6)
    assert one["run"]["norms"] == pytest.approx(four["run"]["norms"], rel=1e-6)
