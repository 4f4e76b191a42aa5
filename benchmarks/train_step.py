"""A whole training step on CPU against Hugging Face's GPT-2 of the same shape, in the same run.

    python -m benchmarks.train_step                     float32: ours, sdpa and eager attention of the peer
    python -m benchmarks.train_step --bf16 --output step.json
    python -m benchmarks.train_step --only ours --profile 25

All models live in one process with the same threads and the same allocator settings (megatron/device/cpu_tuning.py)
and take turns, a step each. --only measures one of them alone: the figures must agree, since nothing of ours may slow
the peer. The default shape has 8.5 million parameters: hidden 256, 8 layers, 4 heads, sequence 512, vocabulary 8192,
batch 4, dropout 0.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import transformers

from benchmarks.training_steps import StepShape, hugging_face_step, interleave, median_ratio, our_step
from megatron.cli.start_up import quiet_libraries
from megatron.device.device import Device, choose_device

OURS, MAIN_PEER = "ours", "transformers sdpa"
SHAPE = StepShape(
    name="gpt2-like 8.5M",
    hidden_size=256,
    num_layers=8,
    num_heads=4,
    seq_length=512,
    vocabulary_size=8192,
    batch_size=4,
)
TOY = StepShape(name="toy", hidden_size=32, num_layers=2, num_heads=2, seq_length=64, vocabulary_size=256, batch_size=2)


def main() -> None:
    """Measure, print the table, and write JSON if wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bf16", action="store_true", help="bfloat16; ours keeps float32 master weights")
    parser.add_argument("--compile", action="store_true", help="also the peer under torch.compile")
    parser.add_argument("--rounds", type=int, default=15, help="measured steps of each (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=3, help="steps before them (default: %(default)s)")
    parser.add_argument("--toy", action="store_true", help="a tiny model, to try the program")
    parser.add_argument("--only", metavar="NAME", help="one contestant alone")
    parser.add_argument("--profile", type=int, metavar="N", help="also print the N costliest operations of each")
    parser.add_argument("--output", type=Path, help="write the figures as JSON to this file")
    arguments = parser.parse_args()
    quiet_libraries()
    transformers.logging.set_verbosity_error()
    device = choose_device("cpu")
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    shape = TOY if arguments.toy else SHAPE
    makers = contestants(shape, device, dtype, compiled=arguments.compile)
    if arguments.only:
        if arguments.only not in makers:
            parser.error(f"--only {arguments.only}: choose one of {', '.join(makers)}")
        makers = {arguments.only: makers[arguments.only]}
    steps = {name: make() for name, make in makers.items()}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in steps}
    timed = {name: with_cpu_time(step, cpu_seconds[name]) for name, step in steps.items()}
    seconds = interleave(timed, device, rounds=arguments.rounds, warm_up=arguments.warm_up)
    cpu_seconds = {name: times[arguments.warm_up :] for name, times in cpu_seconds.items()}
    figures = {
        "shape": vars(shape),
        "parameters": shape.parameters,
        "dtype": str(dtype).removeprefix("torch."),
        "device": device.name,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "contestants": {name: summary(name, seconds, cpu_seconds, shape) for name in seconds},
    }
    print_table(figures)
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")
    for name, step in steps.items() if arguments.profile else ():
        print(f"\n{name}\n{profile(step, arguments.profile)}")


def contestants(
    shape: StepShape, device: Device, dtype: torch.dtype, *, compiled: bool
) -> dict[str, Callable[[], Callable[[], float]]]:
    """Makers of the steps by name; ours joins a world of one process."""

    def ours() -> Callable[[], float]:
        from megatron.layout import grid as grids
        from megatron.layout.options import LayoutOptions

        return our_step(shape, device, grids.initialise(LayoutOptions(), device), dtype)

    peer = partial(hugging_face_step, shape, device, dtype)
    makers: dict[str, Callable[[], Callable[[], float]]] = {
        OURS: ours,
        MAIN_PEER: peer,
        "transformers eager": partial(peer, attention="eager"),
    }
    if compiled:
        makers["transformers sdpa, compiled"] = partial(peer, compiled=True)
    return makers


def with_cpu_time(step: Callable[[], float], cpu_seconds: list[float]) -> Callable[[], float]:
    """The same step, which also notes the CPU seconds of all threads: steadier than the clock on a busy machine."""

    def timed() -> float:
        begin = time.process_time()
        loss = step()
        cpu_seconds.append(time.process_time() - begin)
        return loss

    return timed


def summary(
    name: str, seconds: dict[str, list[float]], cpu_seconds: dict[str, list[float]], shape: StepShape
) -> dict[str, float | list[float]]:
    """Figures of one contestant; times_as_fast, less_cpu: us against it, round by round."""
    median = statistics.median(seconds[name])
    figures: dict[str, float | list[float]] = {
        "median_ms": median * 1e3,
        "fastest_ms": min(seconds[name]) * 1e3,
        "cpu_ms": statistics.median(cpu_seconds[name]) * 1e3,
        "tokens_per_second": shape.tokens / median,
        "gflops": shape.tokens * shape.flops_per_token / median / 1e9,
        "seconds": seconds[name],
    }
    if OURS in seconds and name != OURS:
        figures["times_as_fast"] = median_ratio(seconds[OURS], seconds[name])
        figures["less_cpu"] = median_ratio(cpu_seconds[OURS], cpu_seconds[name])
    return figures


def print_table(figures: dict[str, object]) -> None:
    """The figures as text."""
    print(
        f"{figures['device']}, {figures['dtype']}, torch {figures['torch']}, transformers {figures['transformers']}, "
        f"load {figures['load_average']:.1f}"
    )
    titles = ("median ms", "best ms", "CPU ms", "tokens/s", "GFLOP/s", "ours is", "by CPU")
    print(" " * 30 + "".join(f"{title:>11}" for title in titles))
    contestants = figures["contestants"]
    assert isinstance(contestants, dict)
    for name, row in contestants.items():
        ratio = f"{row['times_as_fast']:10.2f}x{row['less_cpu']:10.2f}x" if "times_as_fast" in row else ""
        print(
            f"{name:30}{row['median_ms']:11.1f}{row['fastest_ms']:11.1f}{row['cpu_ms']:11.1f}{row['tokens_per_second']:11,.0f}"
            f"{row['gflops']:11.1f}{ratio}"
        )


def profile(step: Callable[[], float], rows: int) -> str:
    """A table of the costliest operations over five steps, by their own CPU time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(5):
            step()
    return profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=rows, max_name_column_width=50)


if __name__ == "__main__":
    main()
