"""Times the interval softmax and whole attention, forward + backward, against their peers in the same run.

    python benchmarks/fused_softmax.py                      both sections on CPU
    python benchmarks/fused_softmax.py --device cuda --output result.json

Peers run in this process with the same allocator settings, one after another in each round; the median of the rounds
is reported. Masks are prefixes of half the row, and plain causal ones for attention.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from megatron.attention.interval_softmax import interval_softmax
from megatron.attention.registry import ATTENTION_BACKENDS
from megatron.device.device import Device, choose_device
from megatron.records.batch import Visibility

SOFTMAX_SHAPES = ((8, 8, 512, 512), (2, 8, 2048, 2048))
ATTENTION_SHAPES = ((4, 4, 512, 64), (8, 8, 512, 64), (2, 8, 1024, 64), (2, 8, 2048, 64))  # b, h, s, d
SCALE = 0.125
Forward = Callable[[], Tensor]


@dataclass(frozen=True)
class Timing:
    """Median milliseconds of one contestant; speed_up: the best peer's time over ours, in our own line only."""

    section: str
    case: str
    contestant: str
    forward_ms: float
    total_ms: float
    gigabytes_per_s: float | None = None
    speed_up: float | None = None


def main() -> None:
    """Run the sections asked for, print a table, and write JSON if wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to run (default: cpu)")
    parser.add_argument("--dtype", default=None, choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--section", default="both", choices=("softmax", "attention", "both"))
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds; two more warm up (default: 15)")
    parser.add_argument("--output", type=Path, help="write the table as JSON to this file")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if device.is_cuda else "float32"))
    print(f"{device.name}, {str(dtype).removeprefix('torch.')}, torch {torch.__version__}, {arguments.rounds} rounds")
    timings: list[Timing] = []
    if arguments.section != "attention":
        timings += softmax_section(device, dtype, arguments.rounds)
    if arguments.section != "softmax":
        timings += attention_section(device, dtype, arguments.rounds)
    if arguments.output:
        record = {"device": device.name, "dtype": str(dtype), "torch": torch.__version__, "rounds": arguments.rounds}
        record["timings"] = [asdict(timing) for timing in timings]
        arguments.output.write_text(json.dumps(record, indent=2) + "\n")


def softmax_section(device: Device, dtype: torch.dtype, rounds: int) -> list[Timing]:
    """The op alone: plain torch, torch.compile, ours."""
    timings = []
    for shape in SOFTMAX_SHAPES:
        batch, _, length, _ = shape
        visibility = prefix_visibility(batch, length, device)
        scores = torch.randn(shape, dtype=dtype, device=device.torch_device, requires_grad=True)
        grad = torch.randn_like(scores)
        hidden = ~visibility.dense
        contestants: dict[str, Forward] = {
            "plain torch": partial(plain_softmax, scores, hidden),
            "torch.compile": partial(torch.compile(plain_softmax), scores, hidden),
            "interval_softmax": partial(interval_softmax, scores, visibility.intervals, None, SCALE),
        }
        results = race(contestants, (scores,), grad, device, rounds)
        # Forward writes one tensor and reads one, backward writes one and reads two; only visible entries are read.
        visible = visibility.dense.sum().item() / (batch * length * length)
        gigabytes = scores.numel() * scores.element_size() * (2 + 3 * visible) / 1e9
        timings += table("softmax", f"{list(shape)} prefix", results, "interval_softmax", gigabytes)
    return timings


def attention_section(device: Device, dtype: torch.dtype, rounds: int) -> list[Timing]:
    """Whole attention through every backend: what `--attention-backend auto` decides between."""
    timings = []
    for batch, heads, length, width in ATTENTION_SHAPES:
        for mask in ("causal", "prefix", "prefix + bias", "causal + dropout"):
            visibility = (causal_visibility if "causal" in mask else prefix_visibility)(batch, length, device)
            inputs = tuple(
                # [s, b, h, d] storage, as the transformer block hands it over.
                torch.randn(length, batch, heads, width, dtype=dtype, device=device.torch_device)
                .permute(1, 2, 0, 3)
                .requires_grad_()
                for _ in range(3)
            )
            bias = torch.randn(heads, 2 * length - 1, device=device.torch_device) if "bias" in mask else None
            dropout_p = 0.1 if "dropout" in mask else 0.0
            contestants: dict[str, Forward] = {
                name: partial(
                    ATTENTION_BACKENDS[name],
                    *inputs,
                    visibility,
                    scale=SCALE,
                    distance_bias=bias,
                    dropout_p=dropout_p,
                )
                for name in ATTENTION_BACKENDS
            }
            results = race(contestants, inputs, torch.randn_like(inputs[0]), device, rounds)
            timings += table("attention", f"{[batch, heads, length, width]} {mask}", results, "fused_softmax")
    return timings


def plain_softmax(scores: Tensor, hidden: Tensor) -> Tensor:
    """What one writes without a fused kernel."""
    return (scores * SCALE).masked_fill(hidden, -torch.inf).softmax(-1)


def prefix_visibility(batch: int, length: int, device: Device) -> Visibility:
    """Every sample sees its first half whole and the rest causally."""
    end = torch.arange(1, length + 1, dtype=torch.int32).clamp(min=length // 2)
    return Visibility(device.put(_intervals(end, batch)), length)


def causal_visibility(batch: int, length: int, device: Device) -> Visibility:
    """Every sample is plainly causal."""
    end = torch.arange(1, length + 1, dtype=torch.int32)
    return Visibility(device.put(_intervals(end, batch)), length, is_causal=True)


def _intervals(end: Tensor, batch: int) -> Tensor:
    return torch.stack([torch.zeros_like(end), end], dim=-1).repeat(batch, 1, 1)


def race(
    contestants: dict[str, Forward], inputs: tuple[Tensor, ...], grad: Tensor, device: Device, rounds: int
) -> dict[str, tuple[float, float]]:
    """Median (forward, forward + backward) milliseconds of each contestant, taking turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for number in range(rounds + 2):
        for name, forward in contestants.items():
            start = device.clock()
            output = forward()
            middle = device.clock()
            gradients = torch.autograd.grad(output, inputs, grad)
            end = device.clock()
            del output, gradients  # so that the next contestant finds the allocator as this one did
            if number >= 2:
                times[name].append((middle - start, end - start))
    return {
        name: (statistics.median(t[0] for t in pairs) * 1e3, statistics.median(t[1] for t in pairs) * 1e3)
        for name, pairs in times.items()
    }


def table(
    section: str, case: str, results: dict[str, tuple[float, float]], ours: str, gigabytes: float | None = None
) -> list[Timing]:
    """Print the lines of one case and return them."""
    best_peer = min(total for name, (_, total) in results.items() if name != ours)
    timings = []
    for name, (forward, total) in results.items():
        rate = gigabytes / (total / 1e3) if gigabytes and name == ours else None
        speed_up = best_peer / total if name == ours else None
        timings.append(Timing(section, case, name, forward, total, rate, speed_up))
        note = f"  {speed_up:.2f} x the best peer" if speed_up else ""
        note += f", {rate:.0f} GB/s" if rate else ""
        print(
            f"{section:10} {case:36} {name:18} forward {forward:8.2f} ms  + backward {total:8.2f} ms{note}", flush=True
        )
    return timings


if __name__ == "__main__":
    main()
