"""The launcher that measures adaptation, from nothing to its table: the non-causal one is there sooner."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_non_causal_adaptation_is_there_sooner(tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    folder = tmp_path / "a folder"
    done = subprocess.run(
        [ROOT / "examples/adaptation_speed/run.sh", folder],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    table = (folder / "table.txt").read_text()
    rows = [line.split() for line in table.splitlines() if line.endswith("x")]
    times_faster = {row[3]: float(row[-1].removesuffix("x")) for row in rows}
    assert times_faster["NC-A"] > 1.3
    assert "LM-A" in table  # which pays at larger sizes only, and may not be there in this time
