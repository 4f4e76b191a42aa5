"""Reads run folders without the code that wrote them."""

import json
import zlib
from pathlib import Path
from typing import Any

from safetensors import safe_open

UNSTABLE = ("iteration-time", "tokens-per-second", "tflops-per-device", "memory-bytes", "validation-time")


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


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what differs between two equal runs: times and memory."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in UNSTABLE} for line in lines]


def lineage_of(run: Path, iteration: int) -> list[dict[str, Any]]:
    """What a checkpoint says its weights were trained on."""
    content = json.loads((run / f"iter_{iteration:07d}" / "manifest.json").read_text())
    return content["body"]["contents"]["lineage"]


def assert_sound(folder: Path) -> None:
    """Every piece of a checkpoint has the bytes that its manifest promises; read without our loader."""
    body = json.loads((folder / "manifest.json").read_text())["body"]
    for entry in body["tensors"].values():
        for file, name, _, shape, crc32 in entry["pieces"]:
            with safe_open(folder / file, framework="numpy") as shard:
                piece = shard.get_tensor(name)
            assert list(piece.shape) == shape and zlib.crc32(piece.tobytes()) == crc32


def listing(run: Path) -> list[str]:
    """Everything in a run folder; event files bear the time and process of each start."""
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if "events.out" not in path.name)


def iterations_of(run: Path) -> list[int]:
    """Iterations of the complete checkpoints."""
    return sorted(int(path.parent.name.removeprefix("iter_")) for path in run.glob("iter_*[0-9]/manifest.json"))


def leftovers_of(run: Path) -> list[str]:
    """Temporary names that a finished run must not leave."""
    return sorted(path.name for path in run.rglob("*") if path.name.startswith(".") and path.name != ".lock")
