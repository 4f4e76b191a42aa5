"""Memory and rate of tools/convert_checkpoint.py, beside a plain copy of the same bytes in the same run.

    python -m benchmarks.conversion                          a Llama of 1 GB in float32, TP 2, PP 2
    python -m benchmarks.conversion --max-shard-size 20MB    written, and read again, in many files
    python -m benchmarks.conversion --one-table              nearly all of it in one table of words
    python -m benchmarks.conversion --turned                 a GPT-2, most of whose matrices are transposed on the way

The command runs in a process of its own, first on a toy, so that all is imported, then on the model. `peak` is what
that process held at most beyond what it held in between, by the kernel's count (VmHWM, reset before): its own memory
and the pages of files that it maps. What it reads without a map is in the kernel's cache, which counts for nobody.
`limit` is the largest file written and 256 MB. The copy is shutil.copyfile and fsync, file by file. Before each turn
the disk is made idle (sync); what is read lies in the cache for all. The command runs without its verdict; in the end
the tensors of both checkpoints are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.gpu.workplace import ROOT, python_path
from benchmarks.sharded_run import causal_decoder, make_run, one_table, turned
from megatron.basics.errors import RunFault
from megatron.checkpoint.folders import checkpoint_folder
from megatron.checkpoint.manifest import read_manifest
from megatron.cli.convert import main as convert
from megatron.conversion.checkpoint_weights import CheckpointWeights

TOY_BYTES = 10**6
ALLOWANCE = 256 * 10**6  # beyond the largest file
MEASURED = "--measured"  # how this program calls itself for one conversion
MB = 10**6


@dataclass(frozen=True)
class Turn:
    """One conversion or copy. peak: bytes beyond what the process held before, of which `mapped` are pages of files."""

    seconds: float
    cpu_seconds: float
    written: int
    largest: int = 0
    peak: int = 0
    mapped: int = 0


def main() -> None:
    """Make the checkpoint, convert it there and back, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000, help="of weights in float32 (default: %(default)s)")
    parser.add_argument("--max-shard-size", default="5GB", help="as the command's (default: %(default)s)")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--one-table", action="store_true", help="a model that is little but its table of words")
    kinds.add_argument("--turned", action="store_true", help="a GPT-2, whose folders hold matrices transposed")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="conversion-") as temporary:
        folder = Path(temporary)
        shape = one_table if arguments.one_table else turned if arguments.turned else causal_decoder
        checkpoint = make_run(folder / "run", *shape(arguments.megabytes * MB))
        make_run(folder / "toy", *(turned if arguments.turned else causal_decoder)(TOY_BYTES))
        turns: dict[str, list[Turn]] = {"to-hf": [], "from-hf": [], "copy": []}
        for _ in range(arguments.rounds):
            turns["to-hf"].append(conversion("to-hf", folder, "run", "exported", arguments.max_shard_size))
            turns["from-hf"].append(conversion("from-hf", folder, "exported", "imported", arguments.max_shard_size))
            turns["copy"].append(plain_copy(checkpoint, folder / "copy"))
            require_equal(checkpoint, checkpoint_folder(folder / "imported", 0))
            shutil.rmtree(folder / "exported")
            shutil.rmtree(folder / "imported")
    print(f"{arguments.max_shard_size} a file at most, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    print_table(turns)


def conversion(direction: str, folder: Path, source: str, target: str, max_shard_size: str) -> Turn:
    """Convert `source` to `target` in a process of its own; the toy beside it first."""
    os.sync()
    toy = "toy" if direction == "to-hf" else "toy_exported"
    words = [direction, str(folder / toy), str(folder / source), str(folder / target), max_shard_size]
    if direction == "to-hf":
        shutil.rmtree(folder / "toy_exported", ignore_errors=True)
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.conversion", MEASURED, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise RunFault(f"{direction} failed: {result.stderr.strip()[-2000:]}")
    return Turn(**json.loads(result.stdout.splitlines()[-1]))


def measure(direction: str, toy: Path, source: Path, target: Path, max_shard_size: str) -> Turn:
    """Convert in this process, which has imported nothing but this program: the toy, then what counts."""
    toy_target = toy.with_name("toy_exported") if direction == "to-hf" else target.with_name("toy_imported")
    convert([direction, "--load", str(toy), "--save", str(toy_target), "--no-verify"])
    if direction == "from-hf":
        shutil.rmtree(toy_target)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start, cpu_start = memory(), time.perf_counter(), time.process_time()
    convert(
        [direction, "--load", str(source), "--save", str(target), "--max-shard-size", max_shard_size, "--no-verify"]
    )
    seconds, cpu_seconds, after = time.perf_counter() - start, time.process_time() - cpu_start, memory()
    sizes = [path.stat().st_size for path in target.rglob("*.safetensors")]
    return Turn(
        seconds,
        cpu_seconds,
        sum(sizes),
        max(sizes),
        after["VmHWM"] - before["VmRSS"],
        after["RssFile"] - before["RssFile"],
    )


def memory() -> dict[str, int]:
    """Bytes by the name that the kernel gives them: VmRSS now, VmHWM at most, RssFile mapped files."""
    fields = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in fields if words[-1] == "kB"}


def plain_copy(checkpoint: Path, target: Path) -> Turn:
    """The files of the checkpoint, copied and made durable as an export is."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    os.sync()
    start, cpu_start = time.perf_counter(), time.process_time()
    for path in sorted(checkpoint.glob("*.safetensors")):
        shutil.copyfile(path, target / path.name)
        with open(target / path.name, "rb+") as file:
            os.fsync(file.fileno())
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    sizes = [path.stat().st_size for path in target.iterdir()]
    shutil.rmtree(target)
    return Turn(seconds, cpu_seconds, sum(sizes), max(sizes))


def require_equal(one: Path, other: Path) -> None:
    """Raise RunFault unless both checkpoints hold the same weights."""
    names = {name: entry.shape for name, entry in read_manifest(one).tensors.items()}
    weights = [CheckpointWeights(folder, read_manifest(folder), names) for folder in (one, other)]
    for name in names:
        if not torch.equal(*(side.read(name) for side in weights)):
            raise RunFault(f"{name} did not come back as it went.")


def print_table(turns: dict[str, list[Turn]]) -> None:
    """Medians, and how they stand to the limit and to the copy."""
    copy = statistics.median(turn.seconds / turn.written for turn in turns["copy"])
    titles = ("peak MB", "mapped MB", "largest MB", "limit MB", "seconds", "best", "CPU s", "MB/s", "of copy")
    print(" " * 10 + "".join(f"{title:>11}" for title in titles))
    for name, own in turns.items():
        seconds = statistics.median(turn.seconds for turn in own)
        per_byte = statistics.median(turn.seconds / turn.written for turn in own)
        largest = max(turn.largest for turn in own)
        peak = max(turn.peak for turn in own)
        sizes = (peak, max(turn.mapped for turn in own), largest, largest + ALLOWANCE)
        shown = [f"{size / MB:11.1f}" if name != "copy" else " " * 11 for size in sizes]
        times = (seconds, min(turn.seconds for turn in own), statistics.median(turn.cpu_seconds for turn in own))
        shown += [*(f"{time:11.2f}" for time in times), f"{1 / per_byte / MB:11.0f}", f"{copy / per_byte:10.0%}"]
        print(f"{name:10}{''.join(shown)}")


def measured(words: Sequence[str]) -> None:
    """The process of one conversion: print its figures."""
    direction, toy, source, target, max_shard_size = words
    print(json.dumps(asdict(measure(direction, Path(toy), Path(source), Path(target), max_shard_size))))


if __name__ == "__main__":
    if sys.argv[1:2] == [MEASURED]:
        measured(sys.argv[2:])
    else:
        main()
