"""A value that is not finite: the step is applied on no rank, is counted and named, and n in a row end the run."""

import itertools
import json

import pytest
from faults import POISONED, Fault
from launch import run_cases
from run_folder import iterations_of, losses_of, metrics_of, tensors_of


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"tensor_model_parallel_size": 2}, marks=pytest.mark.slow),
        {"pipeline_model_parallel_size": 2},
    ],
    ids=["DP2", "TP2", "PP2"],
)
def test_a_gradient_of_one_rank_stops_the_step_on_all(tmp_path, layout):
    common = {"layout": layout, "model": {"hidden_dropout": 0.1}}
    before, after = str(tmp_path / "before"), str(tmp_path / "after")
    cases = [
        {"name": "before", "steps": 2, "save": before, **common},
        {"name": "after", "steps": 3, "poisoned_step": 2, "save": after, **common},
        {"name": "goes on", "steps": 4, "poisoned_step": 2, **common},
    ]
    results = run_cases(tmp_path, cases, ranks=2)
    assert results["after"]["nonfinite"][:2] == [None, None]
    named = results["after"]["nonfinite"][2]
    # With data parallelism the sum over ranks is not finite: the rank that holds that part of it is named.
    assert "linear_fc2.weight (rank 1)" in named if layout else "linear_fc2.weight (rank" in named
    assert results["after"]["checkpoint"] == results["before"]["checkpoint"]  # weights, master weights and moments
    assert results["goes on"]["nonfinite"][3] is None


def test_told_and_counted(trainer, tiny_corpus, tmp_path):
    """Through the command line: which parameter, which rank, which samples; weights and moments stay as they were."""
    run = tmp_path / "run"
    flags = tiny_corpus.flags(
        train_iters=5, save=run, save_interval=1, tensor_model_parallel_size=2, max_nonfinite_steps=2, log_interval=1
    )
    ended = trainer.finish(flags, ranks=2, faults=[Fault(at="gradient", call=3, rank=1)])
    assert f"gradient of {POISONED} (rank 1) was not finite at iteration 3 (samples 8 to 11)" in ended.output
    assert [step["nonfinite"] is None for step in metrics_of(run)] == [True, True, False, True, True]
    assert "number of nan iterations:   1" in ended.output
    assert tensors_of(run, 3) == tensors_of(run, 2) != tensors_of(run, 4)
    counted = json.loads((run / "iter_0000005" / "manifest.json").read_text())["body"]["contents"]["progress"]
    assert (counted["nonfinite_steps"], counted["nonfinite_in_a_row"], counted["skipped_steps"]) == (1, 0, 0)


def test_an_overflow_of_float16_is_no_such_thing(trainer, tiny_corpus, tmp_path):
    """Such steps are counted as skipped, and each halves the loss scale until it fits."""
    run = tmp_path / "run"
    flags = tiny_corpus.flags(
        train_iters=20, save=run, fp16=True, initial_loss_scale=2.0**24, hysteresis=1, max_nonfinite_steps=1
    )
    trainer.finish(flags)
    steps = metrics_of(run)
    assert steps[0]["skipped"] and not all(step["skipped"] for step in steps)
    assert all(step["nonfinite"] is None for step in steps)
    for before, after in itertools.pairwise(steps):
        assert after["loss-scale"] == before["loss-scale"] / (2 if before["skipped"] else 1)
    assert len(losses_of(run)) == 20


def test_float16_skips_no_step_at_its_default_scale(trainer, tiny_corpus, tmp_path):
    """And its losses are those of float32."""
    size = {"seq_length": 128, "micro_batch_size": 8, "global_batch_size": 16}
    shape = {**size, "hidden_dropout": 0, "attention_dropout": 0}
    losses = []
    for number, precision in enumerate(({"fp16": True}, {})):
        run = tmp_path / str(number)
        trainer.finish(tiny_corpus.flags(train_iters=10, save=run, **shape, **precision))
        assert not any(step["skipped"] or step["nonfinite"] for step in metrics_of(run))
        losses.append(list(losses_of(run).values()))
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_too_many_in_a_row_end_the_run(trainer, tiny_corpus, tmp_path):
    run = tmp_path / "run"
    flags = tiny_corpus.flags(lr=1e30, clip_grad=0, train_iters=50, max_nonfinite_steps=3, save=run, save_interval=100)
    ended = trainer.run(flags)
    assert ended.code == 1, ended.output
    (fault,) = ended.errors
    assert "3 steps in a row were not finite" in fault and "Traceback" not in ended.output
    assert "applied on no rank" in ended.output
    assert [step["nonfinite"] is not None for step in metrics_of(run)[-3:]] == [True] * 3
    assert iterations_of(run) == []
