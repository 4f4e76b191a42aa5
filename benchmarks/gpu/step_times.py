"""Part `step`: tokens/s, TFLOP/s and MFU of whole training steps, with Hugging Face's GPT-2 in the same run."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.gpu.workplace import Line, PartFailed, Workplace

SECONDS_TO_COMPILE = 60.0


def measure(place: Workplace) -> None:
    """One worker for each shape; the compiled peer where the time allows it."""
    failures = []
    for name in ("toy",) if place.quick else ("125M", "350M"):
        output = place.folder / f"{name}.json"
        compiled = ["--compile"] if name == "125M" and place.seconds_left > 2 * SECONDS_TO_COMPILE else []
        try:
            place.python(
                "-m", "benchmarks.gpu.step_worker", place.device, name, str(output), *compiled, name=f"step-{name}"
            )
        except PartFailed as failure:
            failures.append(str(failure))
            continue
        finally:
            if output.is_file():
                _say(place, json.loads(output.read_text()))
    if failures:
        raise PartFailed("; ".join(failures))


def _say(place: Workplace, figures: dict[str, Any]) -> None:
    for name, row in figures["contestants"].items():
        mfu = f", MFU {row['mfu']:.1%}" if row["mfu"] is not None else ""
        ratio = f"; ours is {row['times_as_fast']:.2f}x" if row["times_as_fast"] else ""
        place.say(
            Line(
                check=f"{figures['shape']['name']}, {figures['shape']['batch_size']} x "
                f"{figures['shape']['seq_length']} tokens: {name}",
                outcome=f"{row['median_ms']:.1f} ms, {row['tokens_per_second']:,.0f} tokens/s, {row['tflops']:.1f} "
                f"TFLOP/s{mfu}{ratio}",
                figures={"shape": figures["shape"], "parameters": figures["parameters"], **row},
            )
        )
