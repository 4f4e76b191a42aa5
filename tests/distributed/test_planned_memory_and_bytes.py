"""What a step of real processes sends, to the byte, and what it holds, against the plan's figures."""

import json
from collections import Counter
from pathlib import Path

import pytest
from launch import first_traceback, torchrun

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.shapes import ModelShape
from megatron.layout.options import LayoutOptions
from megatron.loop.memory_estimate import memory_of_rank
from megatron.loop.options import BatchOptions, OptimizerOptions
from megatron.loop.traffic import EMBEDDING, MODEL, PIPELINE, SEND, WORLD, transfers_of_rank
from megatron.loop.training_size import TrainingSize
from megatron.modeling.options import ModelOptions

pytestmark = pytest.mark.slow  # four processes on few cores

RANKS, VOCABULARY, LENGTH, DECODER_LENGTH, GLOBAL_BATCH = 4, 100, 32, 12, 8  # those of layout_worker.py
TINY = {"num_layers": 4, "hidden_size": 32, "num_attention_heads": 4, "make_vocab_size_divisible_by": 64}
LAYOUTS = {
    "dp4": {},
    "tp2": {"tensor_model_parallel_size": 2},
    "tp2-sp": {"tensor_model_parallel_size": 2, "sequence_parallel": True},
    "pp2": {"pipeline_model_parallel_size": 2},
    "pp4": {"pipeline_model_parallel_size": 4},
    "tp2-pp2": {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2},
    "tp2-sp-pp2-vpp2": {
        "tensor_model_parallel_size": 2,
        "pipeline_model_parallel_size": 2,
        "num_virtual_stages_per_pipeline_rank": 2,
        "sequence_parallel": True,
    },
    "overlap": {"overlap_grad_reduce": True, "overlap_param_gather": True, "tensor_model_parallel_size": 2},
    "recompute-full": {"recompute_granularity": "full", "tensor_model_parallel_size": 2},
    "recompute-block-sp": {
        "recompute_granularity": "full",
        "recompute_method": "block",
        "recompute_num_layers": 1,
        "tensor_model_parallel_size": 2,
        "pipeline_model_parallel_size": 2,
        "sequence_parallel": True,
    },
    "recompute-selective": {"recompute_granularity": "selective", "tensor_model_parallel_size": 2},
}
MODELS = {
    "gpt2": {},
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
        "optimizer": {"bf16": True, "z_loss_coeff": 1e-3},
        "backend": "fused_softmax",
    },
    "prefix-decoder": {
        "architecture": "prefix_decoder",
        "objective": "prefix_lm",
        "model": {"position_embedding_type": "relative", "activation": "geglu_tanh"},
        "backend": "fused_softmax",
    },
    "encoder-decoder": {
        "architecture": "encoder_decoder",
        "objective": "span_corruption",
        "model": {
            "encoder_num_layers": 3,
            "decoder_num_layers": 4,
            "qk_layernorm": True,
            "position_embedding_type": "relative",
            "normalization": "RMSNorm",
            "activation": "geglu_tanh",
            "disable_bias_linear": True,
        },
        "backend": "fused_softmax",
    },
}


ADAFACTOR = {**MODELS["encoder-decoder"], "optimizer": {"optimizer": "adafactor"}}
SOME_LAYOUTS = ("tp2", "tp2-sp-pp2-vpp2", "recompute-block-sp")
WIDE = {"hidden_size": 256, "make_vocab_size_divisible_by": 128}  # statistics of norms and the like hardly count here
CASES = [
    {"name": f"{model}:{layout}", "layout": LAYOUTS[layout], **MODELS[model]}
    for model in MODELS
    for layout in (LAYOUTS if model == "gpt2" else SOME_LAYOUTS)
]
WIDE_CASES = [
    {"name": f"wide-adafactor:{layout}", "layout": LAYOUTS[layout], **ADAFACTOR}
    | {"model": {**ADAFACTOR["model"], **WIDE}}
    for layout in ("dp4", "tp2", "tp2-pp2")
] + [
    {"name": f"wide-{model}:{layout}", "layout": LAYOUTS[layout], **MODELS[model]}
    | {"model": {**MODELS[model].get("model", {}), **WIDE}}
    for model in ("gpt2", "llama", "encoder-decoder")
    for layout in ("dp4", "tp2-pp2", "tp2-sp-pp2-vpp2", "recompute-full")
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """By rank, by case: what plan_worker.py writes."""
    folder = tmp_path_factory.mktemp("plan")
    job = folder / "job.json"
    job.write_text(json.dumps({"output": str(folder), "cases": [*CASES, *WIDE_CASES]}))
    done = torchrun(Path(__file__).with_name("plan_worker.py"), str(job), ranks=RANKS)
    assert done.returncode == 0, first_traceback(done.stderr)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


def size_of(case) -> TrainingSize:
    return TrainingSize(
        shape=ModelShape(
            architecture=ARCHITECTURES[case.get("architecture", "causal_decoder")](),
            model=ModelOptions(**{**TINY, "attention_backend": case.get("backend", "sdpa"), **case.get("model", {})}),
            vocabulary_size=VOCABULARY,
            max_positions=LENGTH,
            lengths=(LENGTH, DECODER_LENGTH),
        ),
        layout=LayoutOptions(**{"device": "cpu", **case["layout"]}),
        batch=BatchOptions(micro_batch_size=2, global_batch_size=GLOBAL_BATCH),
        optimizer=OptimizerOptions(**case.get("optimizer", {})),
        world_size=RANKS,
        has_plainly_causal_masks=True,
    )


def planned(size: TrainingSize, result) -> dict[str, int]:
    """Planned payloads by operation and the ranks that take part: groups of the same ranks cannot be told apart."""
    payloads: Counter[str] = Counter()
    ranks = {**result["groups"], WORLD: list(range(RANKS))}
    ranks[MODEL] = max(ranks["tensor"], ranks[PIPELINE], key=len) if len(ranks["data"]) > 1 else ranks[WORLD]
    ranks[EMBEDDING] = [ranks[PIPELINE][0], ranks[PIPELINE][-1]]
    for transfer in transfers_of_rank(size, result["pipeline_rank"]):
        place = "to" if transfer.operation == SEND else ranks[transfer.group]
        payloads[f"{transfer.operation} {place}"] += transfer.payload
    return dict(payloads)


@pytest.mark.parametrize("case", [*CASES, *WIDE_CASES], ids=lambda case: case["name"])
def test_every_rank_sends_what_is_planned_to_the_byte(seen, case):
    size = size_of(case)
    for rank in range(RANKS):
        result = seen[rank][case["name"]]
        assert result["sent"] == planned(size, result), f"rank {rank}"


@pytest.mark.parametrize("case", WIDE_CASES, ids=lambda case: case["name"])
def test_every_rank_holds_what_is_planned(seen, case):
    size = size_of(case)
    for rank in range(RANKS):
        result = seen[rank][case["name"]]
        expected = memory_of_rank(size, result["pipeline_rank"])
        held = result["memory"]
        for part in ("weights", "gradients", "optimizer", "activations"):
            assert getattr(expected, part) == pytest.approx(held[part], rel=0.1), f"{part} of rank {rank}"
