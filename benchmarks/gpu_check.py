"""Builds, tests, trains and measures on a machine with one NVIDIA GPU; needs no network.

    PYTHONPATH=. python3 benchmarks/gpu_check.py                      everything, under nine minutes on an H200
    PYTHONPATH=. python3 benchmarks/gpu_check.py --only train step    some parts
    PYTHONPATH=. python3 benchmarks/gpu_check.py --device cpu --quick the program itself, at toy size, without a GPU

    build       csrc/ compiled for this GPU
    tests       pytest -m gpu: the kernels against float64, training steps of every kind of model
    train       pretrain_gpt.py in bfloat16, float16 and float32; float32 losses against those of the CPU
    checkpoint  a run moves GPU -> CPU -> GPU: weights and moments bitwise, losses within bfloat16's rounding
    step        tokens/s, TFLOP/s and MFU of whole training steps, Hugging Face's GPT-2 in the same run
    softmax     the fused softmax and the attention backends against their peers

Every part runs in processes of its own with a time limit; one that fails is told in the table and the others go on.
Writes benchmarks/results/DEVICE-DATE.json and .md after every line. Exits with 1 when a part failed, 2 without a GPU.
What has to be installed, and how to bring it to a machine without network: benchmarks/results/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu.report import Report, commit_here, versions_here
from benchmarks.gpu.workplace import ROOT, Line, PartFailed, Workplace
from megatron.basics.registry import Registry

# Parts in their order, each with the share of the check's time that it may take: more than it needs, so that one slow
# part costs the last ones at most.
PARTS: dict[str, tuple[str, float]] = {
    "build": ("benchmarks.gpu.building:build", 0.45),
    "tests": ("benchmarks.gpu.building:run_tests", 0.35),
    "train": ("benchmarks.gpu.training:train", 0.3),
    "checkpoint": ("benchmarks.gpu.moving:move", 0.3),
    "step": ("benchmarks.gpu.step_times:measure", 0.4),
    "softmax": ("benchmarks.gpu.softmax_times:measure", 0.25),
}


def main() -> int:
    """Run the parts asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="toy sizes: tries the program, measures nothing")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=530.0, help="limit of the whole check (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="where the record goes")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep logs and runs here")
    arguments = parser.parse_args()
    device = device_name(arguments.device)
    if device is None:
        print("gpu_check: no NVIDIA GPU is usable here, so nothing was run; --device cpu --quick tries the program.")
        return 2
    facts = {
        "device": device + (" quick" if arguments.quick else ""),
        "command": shlex.join(["benchmarks/gpu_check.py", *sys.argv[1:]]),
        "commit": commit_here(),
        "versions": versions_here(),
    }
    report = Report(arguments.results, facts, date=datetime.date.today().isoformat())
    chosen = arguments.only or list(PARTS)
    deadline = time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as temporary:
        folder = arguments.keep or Path(temporary)
        for part in chosen:
            limit = PARTS[part][1] * arguments.seconds
            run_part(part, report, arguments.device, folder / part, (limit, deadline), quick=arguments.quick)
    print(f"\n{report.table()}\nwritten to {report.path} and {report.path.with_suffix('.md').name}")
    return 0 if report.has_passed(chosen) else 1


def device_name(wish: str) -> str | None:
    """What the results are filed under; None when there is no GPU."""
    if wish == "cpu":
        return "CPU"
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def run_part(part: str, report: Report, device: str, folder: Path, times: tuple[float, float], *, quick: bool) -> None:
    """Run one part within its (seconds, deadline of the check); a failure becomes a line of the table."""
    limit, deadline = times
    work = Registry("--only", {name: where for name, (where, _) in PARTS.items()})[part]
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    report.begin(part)

    def say(line: Line) -> None:
        print(f"{part:11}{line.check}: {line.outcome}{'' if line.passed else '  FAILED'}", flush=True)
        report.add(part, line)

    try:
        if started >= deadline:
            raise PartFailed("no time was left for it (--seconds)")
        work(Workplace(device=device, quick=quick, folder=folder, deadline=min(started + limit, deadline), say=say))
    except PartFailed as failure:
        say(Line(check="the part itself", outcome=str(failure), passed=False))
    except Exception as error:  # a fault of this part must not cost the results of the next
        say(Line(check="the part itself", outcome=f"{type(error).__name__}: {error}", passed=False))
    report.end(part, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
