"""A value that is not finite: the step is applied on no rank, is counted and named, and n in a row end the run."""

import json
import subprocess
import sys

import pytest
from launch import ROOT, environment_for, run_cases
from run_folder import iterations_of


@pytest.mark.parametrize("layout", [{}, {"tensor_model_parallel_size": 2}, {"pipeline_model_parallel_size": 2}])
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
    assert "linear_fc2.weight (rank" in results["after"]["nonfinite"][2]
    assert results["after"]["checkpoint"] == results["before"]["checkpoint"]  # weights, master weights and moments
    assert results["goes on"]["nonfinite"][3] is None


def test_too_many_in_a_row_end_the_run(tiny_corpus, entry_script, tmp_path):
    run = tmp_path / "run"
    flags = tiny_corpus.flags(lr=1e30, clip_grad=0, train_iters=50, max_nonfinite_steps=3, save=run, save_interval=100)
    done = subprocess.run(
        [sys.executable, entry_script, *flags], cwd=ROOT, env=environment_for(), capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    (fault,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "3 steps in a row were not finite" in fault and "Traceback" not in done.stderr
    assert "applied on no rank" in done.stderr
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [step["nonfinite"] is not None for step in steps[-3:]] == [True] * 3
    assert iterations_of(run) == []
