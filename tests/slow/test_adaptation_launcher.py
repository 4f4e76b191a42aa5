"""The launcher that measures adaptation, from nothing to its table: adapted models are there sooner."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_adapted_models_are_there_sooner(tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    folder = tmp_path / "a folder"
    done = subprocess.run(
        [ROOT / "examples/adaptation_speed/run.sh", folder],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    rows = [line.split() for line in (folder / "table.txt").read_text().splitlines() if line.endswith("x")]
    times_faster = {row[3]: float(row[-1].removesuffix("x")) for row in rows}
    assert times_faster["NC-A"] > 1.3
    assert times_faster["LM-A_rewarmed"] > 1.0
