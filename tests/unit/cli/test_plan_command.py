"""tools/plan.py: what it lists, in which order, what it refuses, and that it needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.basics.errors import UserError
from megatron.cli import plan
from megatron.cli.run_config import parse_pretrain

ROOT = Path(__file__).resolve().parents[3]
FLAGS = (
    "--devices 8 --devices-per-node 4 --num-layers 8 --hidden-size 512 --num-attention-heads 8 --seq-length 256 "
    "--global-batch-size 32 --bf16"
)
SMALL = FLAGS.split()


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    plan.main([*SMALL, *words])
    return capsys.readouterr().out


def planned(tmp_path: Path, *words: str) -> dict:
    plan.main([*SMALL, *words, "--json", str(tmp_path / "plan.json")])
    return json.loads((tmp_path / "plan.json").read_text())


@pytest.mark.parametrize("architecture", ["causal_decoder", "prefix_decoder", "encoder_decoder"])
def test_layouts_are_listed_best_first_and_all_fit(architecture: str, tmp_path: Path) -> None:
    found = planned(tmp_path, "--architecture", architecture)
    seconds = [one["step_seconds"] for one in found["plans"]]
    assert seconds == sorted(seconds) and len(seconds) > 20
    for one in found["plans"]:
        sizes = (one["tensor_model_parallel_size"], one["pipeline_model_parallel_size"], one["data_parallel_size"])
        assert sizes[0] * sizes[1] * sizes[2] == 8 and sizes[0] <= 4
        assert one["memory_bytes"]["total"] <= 80e9
        assert len(one["transfers"]) == sizes[1]
        assert one["step_seconds"] == pytest.approx(sum(one["seconds"].values()))
    assert {one["tensor_model_parallel_size"] for one in found["plans"]} == {1, 2, 4}
    assert all(one["why"] for one in found["infeasible"])


def test_less_memory_leaves_fewer_layouts_and_then_one_sentence(tmp_path: Path) -> None:
    everything = planned(tmp_path)
    sizes = sorted(one["memory_bytes"]["total"] for one in everything["plans"])
    half = planned(tmp_path, "--device-memory", str(sizes[len(sizes) // 2] / 1e9))
    assert len(sizes) // 2 < len(half["plans"]) + 1 < len(sizes)
    assert any("--device-memory" in one["why"] for one in half["infeasible"])
    with pytest.raises(UserError, match=r"no layout of --devices 8 fits --device-memory 0\.001: the"):
        plan.main([*SMALL, "--device-memory", "0.001"])


def test_a_layout_among_the_flags_is_shown_in_detail(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "--tensor-model-parallel-size", "2", "--pipeline-model-parallel-size", "2")
    assert "layout            TP2 PP2 DP2, 16 micro-batches" in text
    assert text.count("pipeline rank") == 2
    # 16 micro-batches x 4 layers x 4 all-reduces of [256, 1, 512] in bfloat16, and one of the embedding or the head
    hidden = 256 * 512 * 2
    assert f"{16 * (4 * 4 + 1) * hidden:,} bytes" in text


def test_impossible_layouts_are_answered_like_those_of_a_run() -> None:
    with pytest.raises(UserError, match="--num-attention-heads 8 cannot be split over --tensor-model-parallel-size 3"):
        plan.main([*SMALL, "--devices", "3", "--global-batch-size", "3", "--tensor-model-parallel-size", "3"])
    with pytest.raises(UserError, match="--global-batch-size is missing"):
        plan.main(["--devices", "8"])
    with pytest.raises(UserError, match="--objective full_lm is not one of encoder_decoder"):
        plan.main([*SMALL, "--architecture", "encoder_decoder", "--objective", "full_lm"])


@pytest.mark.parametrize(
    "documents", [[], ["--reset-attention-mask"], ["--pack-documents"]], ids=["text", "reset", "packed"]
)
def test_documents_in_a_row_keep_scores_and_then_selective_recompute_is_offered(
    documents: list[str], tmp_path: Path
) -> None:
    """The same decision as that of `cli/wire.py`: plain causal attention alone takes the library's kernel."""
    layout = ("--tensor-model-parallel-size", "1", "--micro-batch-size", "4")
    kept = planned(tmp_path, *documents, *layout)["plans"][0]["memory_bytes"]["activations"]
    free = planned(tmp_path, *layout, "--attention-backend", "sdpa")["plans"][0]["memory_bytes"]["activations"]
    scores = 8 * 4 * 8 * 256 * 256 * 2  # layers, rows, heads, queries, keys, bytes in bfloat16
    assert kept - free == (scores if documents else 0)
    offered = {one["recompute_granularity"] for one in planned(tmp_path, *documents)["plans"]}
    assert ("selective" in offered) == bool(documents)


def test_given_settings_restrict_the_search(tmp_path: Path) -> None:
    assert {one["micro_batch_size"] for one in planned(tmp_path)["plans"]} >= {1, 2, 4}
    found = planned(tmp_path, "--micro-batch-size", "2", "--recompute-granularity", "full")["plans"]
    assert {(one["micro_batch_size"], one["recompute_granularity"]) for one in found} == {(2, "full")}
    assert {one["tensor_model_parallel_size"] for one in found} == {1, 2, 4}


def test_plain_data_parallelism_is_a_layout_that_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert "layout            TP1 PP1 DP8, 4 micro-batches" in run(capsys, "--tensor-model-parallel-size", "1")


def test_settings_that_a_run_refuses_are_refused() -> None:
    overlap = ("--overlap-grad-reduce", "--overlap-param-gather")
    with pytest.raises(UserError, match=r"--overlap-param-gather .* with --optimizer adafactor"):
        plan.main([*SMALL, "--optimizer", "adafactor", *overlap])
    with pytest.raises(UserError, match="--reset-position-ids has no effect with --position-embedding-type alibi"):
        plan.main([*SMALL, "--reset-position-ids", "--position-embedding-type", "alibi"])


def test_a_run_is_planned_by_its_record(
    sound_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--num-layers", "6", "--hidden-size", "384", "--num-attention-heads", "6", "--seq-length", "192"]
    model += ["--optimizer", "adafactor", "--fp16", "--global-batch-size", "24"]
    config = parse_pretrain(
        [*sound_flags, *model],
        architecture="prefix_decoder",
        default_objective="span_corruption",
        legal_objectives=["span_corruption"],
    )
    record = {"options": config.as_dict(), "tokenizer": {"model": "t.model", "vocabulary_size": 5000}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    said = ["--architecture", "prefix_decoder", "--objective", "span_corruption", "--vocab-size", "5000"]
    layout = ["--devices", "4", "--tensor-model-parallel-size", "2"]
    plan.main([*model, *said, *layout])
    expected = capsys.readouterr().out
    plan.main(["--load", str(tmp_path), *layout])
    assert capsys.readouterr().out == expected
    plan.main(["--load", str(tmp_path), *layout, "--num-layers", "2", "--bf16"])
    assert capsys.readouterr().out != expected
    with pytest.raises(UserError, match=r"--load /nowhere holds no run\.json"):
        plan.main([*SMALL, "--load", "/nowhere"])


def test_a_recorded_run_is_planned_with_another_objective(
    sound_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What its objective was told says nothing to another one."""
    config = parse_pretrain(
        [*sound_flags, "--noise-density", "0.3", "--global-batch-size", "24"],
        architecture="prefix_decoder",
        default_objective="span_corruption",
        legal_objectives=["span_corruption"],
    )
    record = {"options": config.as_dict(), "tokenizer": {"model": "t.model", "vocabulary_size": 5000}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    plan.main(["--load", str(tmp_path), "--objective", "prefix_lm", "--devices", "4"])
    assert "parameters" in capsys.readouterr().out


def test_rows_that_a_run_would_have_no_sentinels_for_are_refused() -> None:
    with pytest.raises(UserError, match=r"makes 128 spans .* has 100 sentinels; use --seq-length \d+ or less"):
        plan.main([*SMALL, "--architecture", "prefix_decoder", "--objective", "ul2", "--seq-length", "1024"])


def test_slower_links_make_steps_longer(tmp_path: Path) -> None:
    layout = ("--tensor-model-parallel-size", "4", "--devices", "8")
    fast, slow = (
        planned(tmp_path, *layout, "--node-bandwidth", rate)["plans"][0]["seconds"] for rate in ("400", "100")
    )
    assert slow["tensor"] == pytest.approx(4 * fast["tensor"])
    assert slow["compute"] == fast["compute"]


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; from megatron.cli import plan; plan.main(sys.argv[1:]);"
        "assert not {'torch', 'megatron.core'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *SMALL], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
