"""Part `softmax`: benchmarks/fused_softmax.py on the device."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.gpu.workplace import Line, PartFailed, Workplace


def measure(place: Workplace) -> None:
    """The op against plain torch and torch.compile, then whole attention through every backend."""
    for section in ("softmax",) if place.quick else ("softmax", "attention"):
        output = place.folder / f"{section}.json"
        rounds = "1" if place.quick else "15"
        flags = ("--device", place.device, "--section", section, "--rounds", rounds, "--output", str(output))
        place.python("benchmarks/fused_softmax.py", *flags, name=section)
        timings: list[dict[str, Any]] = json.loads(output.read_text())["timings"]
        if not timings:
            raise PartFailed(f"{section} measured nothing")
        for timing in timings:
            notes = [f"{timing['forward_ms']:.3f} ms forward, {timing['total_ms']:.3f} ms with backward"]
            if timing["gigabytes_per_s"]:
                notes.append(f"{timing['gigabytes_per_s']:,.0f} GB/s")
            if timing["speed_up"]:
                notes.append(f"{timing['speed_up']:.2f}x the best peer")
            check = f"{timing['section']} {timing['case']}: {timing['contestant']}"
            place.say(Line(check=check, outcome=", ".join(notes), figures=timing))
