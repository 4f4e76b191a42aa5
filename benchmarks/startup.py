"""Seconds from command to first finished step of two ranks, and where they go.

    python -m benchmarks.startup
    python -m benchmarks.startup --rounds 5 --output startup.json

The command is torchrun with pretrain_gpt.py on two gloo ranks (TP=2) and a model of 8.5 million parameters; the clock
stops at the log line of iteration 1. One run before the measured ones fills the file cache. The second table is one
process alone: CPU seconds until each part is imported, and the packages that cost most to import.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.toy_corpus import write_corpus, write_vocabulary
from benchmarks.gpu.workplace import ROOT, python_path

FLAGS = (
    *("--device", "cpu", "--num-layers", "8", "--hidden-size", "256", "--num-attention-heads", "4"),
    *("--seq-length", "512", "--make-vocab-size-divisible-by", "8192", "--tensor-model-parallel-size", "2"),
    *("--global-batch-size", "1", "--train-iters", "1", "--eval-iters", "0", "--log-interval", "1"),
    *("--tokenizer-type", "HuggingFaceTokenizer"),
)
# What one process imports, in the order in which a run does.
STAGES = {
    "settings": "import megatron.cli.run_config, megatron.cli.pretrain",
    "torch": "import torch",
    "megatron-core": "from megatron.device.device import choose_device; choose_device('cpu')",
    "the rest of ours": "import megatron.cli.training, megatron.tokenization.tokenizer",
}


def main() -> None:
    """Measure, print both tables, and write JSON if wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="measured starts (default: %(default)s)")
    parser.add_argument("--packages", type=int, default=12, help="rows of the import table (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write the figures as JSON to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        vocabulary = write_vocabulary(folder / "vocabulary")
        corpus = write_corpus(folder / "corpus", vocabulary, 10_000)
        flags = [*FLAGS, "--train-data-path", str(corpus), "--tokenizer-model", str(vocabulary)]
        seconds_to_first_step(flags)
        starts = [seconds_to_first_step(flags) for _ in range(arguments.rounds)]
    figures = {
        "seconds_to_first_step": starts,
        "median": statistics.median(starts),
        "load_average": os.getloadavg()[0],
        "cpu_seconds": stage_seconds(),
        "import_seconds": import_seconds(arguments.packages),
    }
    print_tables(figures)
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")


def seconds_to_first_step(flags: list[str]) -> float:
    """Wall-clock seconds from starting torchrun to the line of iteration 1."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "pretrain_gpt.py", *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    seconds, output = None, []
    for line in process.stdout:
        output.append(line)
        if seconds is None and re.search(r"iteration +1/ +1 ", line):
            seconds = time.perf_counter() - started
    if process.wait() != 0 or seconds is None:
        raise RuntimeError("the run did not come to its first step:\n" + "".join(output[-20:]))
    return seconds


def stage_seconds() -> dict[str, float]:
    """CPU seconds that each stage adds in one process."""
    lines = ["import time", "marks = [0.0]"]
    for code in STAGES.values():
        lines += [code, "marks.append(time.process_time())"]
    answer = run_python("-c", "\n".join([*lines, "print(*marks)"])).stdout
    marks = [float(mark) for mark in answer.split()]
    return {name: after - before for name, before, after in zip(STAGES, marks, marks[1:], strict=False)}


def import_seconds(rows: int) -> dict[str, float]:
    """The packages with the largest own import time, all their modules together; two levels for torch and megatron."""
    report = run_python("-X", "importtime", "-c", "\n".join(STAGES.values())).stderr
    totals: dict[str, float] = {}
    for own, module in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", report):
        depth = 2 if module.startswith(("torch.", "megatron.")) else 1
        package = ".".join(module.split(".")[:depth])
        totals[package] = totals.get(package, 0.0) + int(own) / 1e6
    return dict(sorted(totals.items(), key=lambda item: -item[1])[:rows])


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """This interpreter, warnings off, from the repository's root."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        check=True,
    )


def print_tables(figures: dict[str, Any]) -> None:
    """Both tables as text."""
    starts = ", ".join(f"{seconds:.1f}" for seconds in figures["seconds_to_first_step"])
    print(
        f"command to first step of two ranks: {figures['median']:.1f} s ({starts}), load {figures['load_average']:.1f}"
    )
    print(f"\n{'one process':24}{'CPU s':>8}")
    for name, seconds in figures["cpu_seconds"].items():
        print(f"{name:24}{seconds:8.2f}")
    print(f"\n{'package':24}{'import s':>8}")
    for name, seconds in figures["import_seconds"].items():
        print(f"{name:24}{seconds:8.2f}")


if __name__ == "__main__":
    main()
