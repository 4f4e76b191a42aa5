"""Starts real torchrun jobs for the tests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def torchrun(
    script: str | Path, *arguments: str, ranks: int, environment: dict[str, str] | None = None, timeout: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """Run a script on `ranks` gloo processes of this machine; never raises for its exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return subprocess.run(
        [*command, str(script), *arguments],
        cwd=ROOT,
        env=environment_for(environment),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def environment_for(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: the repository on the path, one thread a rank."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(extra or {})}


def run_cases(folder: Path, cases: list[dict[str, Any]], ranks: int = 4) -> dict[str, Any]:
    """The results of layout_worker.py by the name of the case."""
    job = folder / "job.json"
    job.write_text(json.dumps({"output": str(folder / "results.json"), "cases": cases}))
    done = torchrun(Path(__file__).with_name("layout_worker.py"), str(job), ranks=ranks)
    assert done.returncode == 0, done.stdout[-2000:] + first_traceback(done.stderr)
    return json.loads((folder / "results.json").read_text())


def by_layout(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same cases with those of one layout next to one another, for cases that do not build on one another."""
    return sorted(cases, key=lambda case: json.dumps(case["layout"], sort_keys=True))


def first_traceback(stderr: str) -> str:
    """What the first rank said before torchrun's own report of the failure."""
    return stderr.split("torch/distributed/run.py", maxsplit=1)[0][-4000:]
