"""Reads run folders with nothing but the standard library."""

import json
from pathlib import Path
from typing import Any


def tensors_of(run: Path, iteration: int) -> dict[str, Any]:
    """Name, place and checksum of every piece of every tensor: equal for equal weights, moments and layouts."""
    return json.loads((run / f"iter_{iteration:07d}" / "manifest.json").read_text())["body"]["tensors"]


def losses_of(run: Path) -> dict[int, float]:
    """{iteration: loss} of metrics.jsonl; an iteration that stands there twice is a fault."""
    losses: dict[int, float] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        step = json.loads(line)
        if "lm loss" in step:
            assert step["iteration"] not in losses, f"iteration {step['iteration']} was logged twice"
            losses[step["iteration"]] = step["lm loss"]
    return losses


def iterations_of(run: Path) -> list[int]:
    """Iterations of the complete checkpoints."""
    return sorted(int(path.parent.name.removeprefix("iter_")) for path in run.glob("iter_*/manifest.json"))


def leftovers_of(run: Path) -> list[str]:
    """Temporary names that a finished run must not leave."""
    return sorted(path.name for path in run.rglob("*") if path.name.startswith(".") and path.name != ".lock")
