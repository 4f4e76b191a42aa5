"""python -m benchmarks.gpu.step_worker DEVICE SHAPE OUTPUT [--compile]: measures one shape and writes JSON."""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.training_steps import StepShape, hugging_face_step, interleave, median_ratio, our_step
from megatron.cli.start_up import quiet_libraries
from megatron.device.device import Device, choose_device
from megatron.layout import grid as grids
from megatron.layout.options import LayoutOptions
from megatron.loop.throughput import Throughput, peak_tflops_of

GPT2 = StepShape(
    name="125M", hidden_size=768, num_layers=12, num_heads=12, seq_length=2048, vocabulary_size=50304, batch_size=16
)
SHAPES = {
    "125M": GPT2,
    "350M": replace(GPT2, name="350M", hidden_size=1024, num_layers=24, num_heads=16, batch_size=8),
    "toy": StepShape(
        name="toy", hidden_size=32, num_layers=2, num_heads=2, seq_length=64, vocabulary_size=256, batch_size=2
    ),
}
OURS = "ours"


def main() -> None:
    """Halve the batch until everybody fits into the memory, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device")
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("output", type=Path)
    parser.add_argument("--compile", action="store_true", help="afterwards also the peer under torch.compile")
    arguments = parser.parse_args()
    quiet_libraries()
    device = choose_device(arguments.device)
    shape, rows = SHAPES[arguments.shape], None
    while rows is None:
        try:
            rows = measure_shape(shape, device, compiled=False)
        except torch.OutOfMemoryError:
            if shape.batch_size == 1:
                raise
            shape = replace(shape, batch_size=shape.batch_size // 2)
            print(f"out of memory; once more with {shape.batch_size} rows", flush=True)
    write(arguments.output, shape, rows)
    if arguments.compile:
        write(arguments.output, shape, {**measure_shape(shape, device, compiled=True), **rows})


def write(output: Path, shape: StepShape, rows: dict[str, Any]) -> None:
    """The figures so far."""
    output.write_text(json.dumps({"shape": asdict(shape), "parameters": shape.parameters, "contestants": rows}))


def measure_shape(shape: StepShape, device: Device, *, compiled: bool) -> dict[str, dict[str, Any]]:
    """Figures of us and the peer in two precisions, or of us against the compiled peer."""
    grid = grids.initialise(LayoutOptions(), device)
    peer = partial(hugging_face_step, shape, device, torch.bfloat16)
    makers = {OURS: partial(our_step, shape, device, grid, torch.bfloat16)}
    if compiled:
        makers["transformers, bfloat16 weights, compiled"] = partial(peer, compiled=True)
    else:
        makers["transformers, bfloat16 weights"] = peer
        makers["transformers, autocast to bfloat16"] = partial(peer, autocast=True)
    try:
        steps = {name: make() for name, make in makers.items()}
        seconds = interleave(steps, device, rounds=3 if shape.name == "toy" else 20, warm_up=3)
    finally:
        grids.shut_down()
    throughput = Throughput(shape.flops_per_token, peak_tflops_of(device.name))
    return {name: figures(shape, times, seconds[OURS], throughput) for name, times in seconds.items()}


def figures(shape: StepShape, seconds: list[float], ours: list[float], throughput: Throughput) -> dict[str, Any]:
    """The row of one contestant; times_as_fast: we against it."""
    median = statistics.median(seconds)
    tflops = throughput.tflops_per_device(shape.tokens / median, 1)
    return {
        "median_ms": median * 1e3,
        "tokens_per_second": shape.tokens / median,
        "tflops": tflops,
        "mfu": throughput.mfu(tflops),
        "milliseconds": [time * 1e3 for time in seconds],
        "times_as_fast": None if seconds is ours else median_ratio(ours, seconds),
    }


if __name__ == "__main__":
    main()
