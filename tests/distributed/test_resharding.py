"""A checkpoint of any layout is the same checkpoint: all pairs of six layouts, weights, master weights and moments."""

import json
import math
from collections import Counter

import pytest
from launch import by_layout, run_cases

LAYOUTS = {
    "dp4": {},
    "tp2": {"tensor_model_parallel_size": 2, "sequence_parallel": True},
    "tp4": {"tensor_model_parallel_size": 4},
    "pp2": {"pipeline_model_parallel_size": 2, "decoder_first_pipeline_num_layers": 3},
    "tp2-pp2": {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2},
    "pp2-vpp2": {"pipeline_model_parallel_size": 2, "num_virtual_stages_per_pipeline_rank": 2},
}
# Gated projections and T5 bias tables are the two parameters that tensor parallelism cuts in an unusual way.
MODEL = {"activation": "swiglu", "position_embedding_type": "relative"}


def test_all_pairs_of_layouts_hold_the_same_bits(tmp_path):
    folders = {source: str(tmp_path / source) for source in LAYOUTS}
    saved = [
        {"name": source, "steps": 2, "save": folders[source], "model": MODEL, "layout": LAYOUTS[source]}
        for source in LAYOUTS
    ]
    moved = [
        {
            "name": f"{source}->{target}",
            "model": MODEL,
            "layout": LAYOUTS[target],
            "seed": 99,
            "load": folders[source],
            "save": str(tmp_path / f"{source}->{target}"),
            "steps": 0,
            "first_step": 2,
        }
        for source in LAYOUTS
        for target in LAYOUTS
    ]
    results = run_cases(tmp_path, [*by_layout(saved), *by_layout(moved)])
    for source in LAYOUTS:
        expected = results[source]["checkpoint"]
        assert any(key.startswith("optimizer.state.exp_avg_sq.") for key in expected)
        assert any(key.endswith("relative_bias.weight") for key in expected)
        for target in LAYOUTS:
            assert results[f"{source}->{target}"]["checkpoint"] == expected, (source, target)


ENCODER_DECODER = {
    "architecture": "encoder_decoder",
    "objective": "span_corruption",
    "backend": "fused_softmax",
    "model": {**MODEL, "encoder_num_layers": 3, "decoder_num_layers": 3, "num_query_groups": 2},
}


def test_an_encoder_decoder_goes_round_the_layouts(tmp_path):
    """Its bias tables have copies on all stages of a stack, and stages hold different numbers of layers."""
    names = ["dp4", "tp2-pp2", "pp2-vpp2", "tp2", "dp4"]
    cases, load = [], None
    for number, name in enumerate(names):
        save = str(tmp_path / str(number))
        step = {"steps": 2} if load is None else {"steps": 0, "first_step": 2, "seed": 99, "load": load}
        cases.append({"name": str(number), "layout": LAYOUTS[name], "save": save, **step, **ENCODER_DECODER})
        load = save
    results = run_cases(tmp_path, cases)
    expected = results["0"]["checkpoint"]
    for stack in ("encoder", "decoder"):
        assert f"optimizer.state.exp_avg_sq.{stack}.relative_bias.weight" in expected
        assert f"{stack}.layers.2.self_attention.linear_qkv.weight" in expected
        assert f"{stack}.final_layernorm.weight" in expected
    assert not any("stack" in key for key in expected)
    for number in range(1, len(names)):
        assert results[str(number)]["checkpoint"] == expected, names[number]


ADAFACTOR = {
    "model": {
        **MODEL,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "kv_channels": 64,
        "num_query_groups": 2,
        "ffn_hidden_size": 192,
        "make_vocab_size_divisible_by": 128,
    },
    "optimizer": {"optimizer": "adafactor", "lr": 0.01},
}


@pytest.mark.slow
def test_factored_moments_go_round_the_layouts(tmp_path):
    """Rows and columns are cut each by its own rule, or held by all tensor-parallel ranks and written by one."""
    names = ["dp4", "tp2", "pp2-vpp2", "tp2-pp2", "dp4"]
    cases, load = [], None
    for number, name in enumerate(names):
        save = str(tmp_path / str(number))
        step = {"steps": 2} if load is None else {"steps": 0, "first_step": 2, "seed": 99, "load": load}
        cases.append({"name": str(number), "layout": LAYOUTS[name], "save": save, **step, **ADAFACTOR})
        load = save
    results = run_cases(tmp_path, cases)
    expected = results["0"]["checkpoint"]
    layer = "decoder.layers.1.mlp.linear_fc1.weight"
    for state in ("param", "exp_avg_sq_row", "exp_avg_sq_col"):
        assert f"optimizer.state.{state}.{layer}" in expected
    assert f"optimizer.state.exp_avg_sq.{layer}" not in expected
    for number in range(1, len(names)):
        assert results[str(number)]["checkpoint"] == expected, names[number]
        assert results[str(number)]["weights_follow_masters"]


TP2_SP = {"tensor_model_parallel_size": 2, "sequence_parallel": True}
DROPOUT = {"hidden_dropout": 0.2, "attention_dropout": 0.1}
# float16 begins with a few overflows: the loss scale and its counters resume as well.
PRECISIONS = {
    "float32": {},
    "bf16": {"bf16": True},
    "fp16": {"fp16": True, "initial_loss_scale": 2.0**40, "loss_scale_window": 3, "hysteresis": 1},
}
RESUMED = {
    **{
        f"adam {precision}": {"layout": TP2_SP, "model": DROPOUT, "optimizer": options}
        for precision, options in PRECISIONS.items()
    },
    **{
        f"adafactor {precision}": {
            "layout": TP2_SP,
            "model": ADAFACTOR["model"],
            "optimizer": {**ADAFACTOR["optimizer"], **options},
        }
        for precision, options in PRECISIONS.items()
    },
    **{
        f"encoder-decoder {name}": {
            **ENCODER_DECODER,
            "layout": layout,
            "model": {**ENCODER_DECODER["model"], **DROPOUT},
        }
        for name, layout in (("tp2-sp", TP2_SP), ("pp2-vpp2", LAYOUTS["pp2-vpp2"]))
    },
}


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Runs of eight steps beside runs that stop after five and go on from there."""
    folder = tmp_path_factory.mktemp("resumed")
    cases = []
    for variant, common in RESUMED.items():
        whole, part, rest = (str(folder / f"{variant} {name}") for name in ("whole", "part", "rest"))
        go_on = {"first_step": 5, "steps": 3, "load": part, "save": rest, "seed": 7}
        cases += [
            {"name": f"{variant} whole", "steps": 8, "save": whole, **common},
            {"name": f"{variant} first", "steps": 5, "save": part, **common},
            {"name": f"{variant} second", **go_on, **common},
        ]
    return run_cases(folder, cases)


@pytest.mark.parametrize("variant", RESUMED)
def test_resume_on_the_same_layout_is_bit_exact(variant, resumed):
    whole, first, second = (resumed[f"{variant} {name}"] for name in ("whole", "first", "second"))
    assert whole["losses"] == first["losses"] + second["losses"]
    assert whole["checkpoint"] == second["checkpoint"]
    assert whole["weights_follow_masters"]
    assert len(set(whole["losses"])) == 8
    assert (first["skipped"] > 0) == ("fp16" in variant)


@pytest.mark.slow
def test_another_precision_goes_on_from_the_master_weights(tmp_path):
    """Each data-parallel rank reads its own masters alone, and weights that were stored rounded: they must follow."""
    precisions = {"fp32": {}, "bf16": {"bf16": True}, "fp16": {"fp16": True, "initial_loss_scale": 1.0}}
    cases = []
    for source, options in precisions.items():
        cases.append({"name": source, "steps": 2, "save": str(tmp_path / source), "optimizer": options})
    for source in precisions:
        for target, options in precisions.items():
            save = str(tmp_path / f"{source}-{target}")
            moved = {"load": str(tmp_path / source), "save": save, "seed": 9, "optimizer": options}
            cases.append({"name": f"{source}->{target}", "steps": 0, "first_step": 2, **moved})
    results = run_cases(tmp_path, cases, ranks=2)
    for source in precisions:
        expected = {key: value for key, value in results[source]["checkpoint"].items() if "optimizer." in key}
        for target in precisions:
            moved = results[f"{source}->{target}"]
            assert moved["weights_follow_masters"], (source, target)
            assert expected.items() <= moved["checkpoint"].items(), (source, target)


def test_each_data_parallel_rank_writes_its_own_moments(tmp_path):
    run_cases(tmp_path, [{"name": "run", "steps": 1, "save": str(tmp_path / "run")}])
    body = json.loads((tmp_path / "run" / "iter_0000001" / "manifest.json").read_text())["body"]
    written = Counter()
    for key, entry in body["tensors"].items():
        if key.startswith("optimizer."):
            for file, _, _, shape, _ in entry["pieces"]:
                written[file] += math.prod(shape)
    assert len(written) == 4
    assert max(written.values()) < 1.1 * sum(written.values()) / 4
