"""The quickstart, from nothing to a sample: a few steps of it always, the whole of it when there is time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.cli.loss_curves import LossCurves, read_loss_curves

ROOT = Path(__file__).resolve().parents[2]


def quickstart(folder: Path, steps: int) -> LossCurves:
    """Run it with the interpreter of the tests; its losses."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / "examples/quickstart/run.sh", folder],
        env={**os.environ, "PATH": path, "STEPS": str(steps)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "sample.txt").read_text().startswith("Return a new")
    assert json.loads((folder / "export" / "verdict.json").read_text())["verdict"] == "passed"
    evaluation = json.loads((folder / "evaluation" / "results.json").read_text())
    assert evaluation["n-samples"]["word_order"]["effective"] > 100
    assert evaluation["triarch"]["random"]["word_order"] == 0.25
    return read_loss_curves(folder / "run", "lm loss")


def test_a_short_quickstart_resumes_on_another_layout_and_replaces_an_older_one(tmp_path):
    folder = tmp_path / "a folder"
    (folder / "run" / "iter_0000009").mkdir(parents=True)
    curves = quickstart(folder, steps=16)
    assert [iteration for iteration, _ in curves.training] == list(range(1, 17))
    assert curves.resumes == [(10, "TP1 PP1 DP2")]
    starts = json.loads((folder / "run" / "run.json").read_text())["starts"]
    assert [start["layout"] for start in starts] == ["TP2 PP1 DP1", "TP1 PP1 DP2"]
    assert not (folder / "run" / "iter_0000009").exists()
    assert curves.training[-1][1] < curves.training[0][1] - 0.5


@pytest.mark.slow
def test_the_whole_quickstart_learns(tmp_path):
    curves = quickstart(tmp_path, steps=480)
    results = json.loads((tmp_path / "evaluation" / "results.json").read_text())["results"]
    assert results["word_order"]["acc,none"] > 0.7  # a guess has 0.25
    before, after = (loss for iteration, loss in curves.validation if iteration in (300, 480))
    assert after < before < 5.5  # a guess among 4,096 tokens has 8.3
