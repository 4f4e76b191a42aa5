"""Parts `build` and `tests`: csrc/ for this GPU, and pytest on it."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from benchmarks.gpu.workplace import Line, PartFailed, Workplace

LOADED = """
import sys, torch
from megatron.device.native import LIBRARY, native_ops_available
assert native_ops_available(), "the library does not load"
scores = torch.randn(2, 3, 5, 7, device=sys.argv[1])
ends = torch.arange(1, 6, dtype=torch.int32, device=scores.device)
intervals = torch.stack([torch.zeros_like(ends), ends], dim=-1).repeat(2, 1, 1)
total = torch.ops.triarch.interval_softmax(scores, intervals, None, 1.0).sum().item()
assert abs(total - 30.0) < 1e-3, total
print("bytes:", LIBRARY.stat().st_size)
"""


def build(place: Workplace) -> None:
    """`python setup.py build_ext --inplace`, then one call of the op on the device."""
    started = time.monotonic()
    text = place.python("setup.py", "build_ext", "--inplace", name="build", environment=_compilers(place))
    seconds = time.monotonic() - started
    faults = [line for line in text.splitlines() if "not built" in line or "left out" in line]
    if faults and place.device == "cuda":
        raise PartFailed(faults[0])
    answer = place.python("-c", LOADED, place.device, name="load")
    size = int(re.findall(r"bytes: (\d+)", answer)[-1])
    compiled = text.count("native ops: compiling")
    place.say(
        Line(
            check="csrc/ compiles, loads and answers",
            outcome=f"{compiled} sources in {seconds:.0f} s, {size / 1e6:.1f} MB",
            figures={"seconds": seconds, "sources": compiled, "bytes": size},
        )
    )


def run_tests(place: Workplace) -> None:
    """`pytest tests/gpu -m gpu`."""
    text = place.python("-m", "pytest", "tests/gpu", "-m", "gpu", "-q", "-p", "no:cacheprovider", name="pytest")
    counts = {outcome: int(count) for count, outcome in re.findall(r"(\d+) (passed|skipped|failed)", text)}
    ran = counts.get("passed", 0)
    outcome = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    place.say(
        Line(
            check="pytest tests/gpu -m gpu",
            outcome=outcome or "no test was found",
            passed=ran > 0 or (place.device == "cpu" and counts.get("skipped", 0) > 0),
            figures=counts,
        )
    )


def _compilers(place: Workplace) -> dict[str, str]:
    """nvcc where CUDA puts it, and this GPU's architecture alone, unless the environment says otherwise."""
    found: dict[str, str] = {}
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    nvcc = Path(home) / "bin" / "nvcc"
    if "NVCC" not in os.environ and not shutil.which("nvcc") and nvcc.exists():
        found["NVCC"] = str(nvcc)
    if place.device == "cuda" and "TORCH_CUDA_ARCH_LIST" not in os.environ:
        import torch

        found["TORCH_CUDA_ARCH_LIST"] = "{}.{}".format(*torch.cuda.get_device_capability(0))
    return found
