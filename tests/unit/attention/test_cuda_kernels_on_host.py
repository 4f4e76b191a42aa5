"""The CUDA kernels, run thread by thread on CPU: indexing, edges, reductions. Speed and rounding need a GPU."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from tests.oracles.attention_cases import (
    KINDS,
    assert_at_most_twice_the_error,
    one_of_each_kind,
    plain_softmax,
    random_intervals,
)

ROOT = Path(__file__).resolve().parents[3]
NVCC = os.environ.get("NVCC") or shutil.which("nvcc")
COMPILER = shutil.which("g++")
TYPES = [torch.float32, torch.bfloat16, torch.float16]
ARRANGEMENTS = ["warp, 1 vector a thread", "warp, 4 vectors", "block, 4 vectors", "block, in passes"]
VECTORS_THAT_FIT = [32, 128, 512, 10**6]


def cuda_headers() -> Path | None:
    """The toolkit's include folder, as nvcc itself names it."""
    if NVCC is None:
        return None
    dryrun = subprocess.run([NVCC, "--dryrun", "-x", "cu", "-c", "/dev/null"], capture_output=True, text=True).stderr
    tops = [line.split("TOP=")[1].strip() for line in dryrun.splitlines() if "TOP=" in line]
    folder = Path(tops[0]) / "include" if tops else None
    return folder if folder and (folder / "cuda_runtime_api.h").exists() else None


pytestmark = pytest.mark.skipif(cuda_headers() is None or COMPILER is None, reason="needs the CUDA headers and g++")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    library = tmp_path_factory.mktemp("kernels") / "cuda_on_host.so"
    flags = ["-std=c++20", "-O1", "-w", "-fPIC", "-shared"]
    source = ROOT / "tests" / "oracles" / "cuda_on_host.cpp"
    includes = [f"-I{cuda_headers()}", f"-I{ROOT / 'csrc' / 'attention'}"]
    subprocess.run([COMPILER, *flags, *includes, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def run(kernels, arrangement, scores, intervals, bias, grad, scale, slices=3):
    """Probabilities, score gradient and bias gradient as the kernels leave them in poisoned buffers."""
    batch, heads, num_queries, num_keys = scores.shape
    probs, grad_scores = torch.full_like(scores, torch.nan), torch.full_like(scores, torch.nan)
    means = torch.full((batch, heads, num_queries), torch.nan)
    partial = torch.full((slices, heads, num_queries + num_keys - 1), torch.nan)
    sizes = (ctypes.c_int64 * 4)(*scores.shape)

    def address(tensor):
        return ctypes.c_void_p(0 if tensor is None else tensor.data_ptr())

    kernels.run_on_host(
        TYPES.index(scores.dtype),
        ARRANGEMENTS.index(arrangement),
        sizes,
        *(address(intervals), ctypes.c_float(scale), address(scores), address(bias), address(grad)),
        *(address(probs), address(grad_scores), address(means), address(partial), ctypes.c_int64(slices)),
    )
    return probs, grad_scores, partial.sum(0)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("num_keys", [1, 8, 61, 104, 250])
def test_kernels_are_as_exact_as_plain_torch(kernels, arrangement, dtype, num_keys):
    num_queries = 5
    if -(-(num_keys + 7) * dtype.itemsize // 16) > VECTORS_THAT_FIT[ARRANGEMENTS.index(arrangement)]:
        pytest.skip("rows of this length get more threads")
    intervals = one_of_each_kind(num_queries, num_keys)
    scores = (2 * torch.randn(len(KINDS), 2, num_queries, num_keys)).to(dtype)
    bias = torch.randn(2, num_queries + num_keys - 1)
    grad = torch.randn_like(scores)
    results = run(kernels, arrangement, scores, intervals, bias, grad, 0.37)

    def expected(scores, bias):
        scores, bias = scores.requires_grad_(), bias.clone().requires_grad_()
        probs = plain_softmax(scores, intervals, bias, 0.37)
        gradients = torch.autograd.grad(probs, (scores, bias), grad.to(probs.dtype))
        return [torch.nan_to_num(result.detach()) for result in (probs, *gradients)]

    exact = expected(scores.double(), bias.double())
    plain = expected(scores.detach().clone(), bias)
    for name, ours, yardstick, truth in zip(("probs", "grad", "grad_bias"), results, plain, exact, strict=True):
        assert_at_most_twice_the_error(ours, yardstick, truth, name)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_nan_stays_inside_the_interval_and_outside_it_stays_out(kernels, arrangement):
    intervals = random_intervals("any", 2, 6, 77, seed=4)
    keys = torch.arange(77)
    visible = ((keys >= intervals[..., :1]) & (keys < intervals[..., 1:]))[:, None]
    clean, grad = torch.randn(2, 1, 6, 77), torch.randn(2, 1, 6, 77)
    expected = run(kernels, arrangement, clean, intervals, None, grad, 1.0)
    outside = run(
        kernels,
        arrangement,
        clean.masked_fill(~visible, torch.nan),
        intervals,
        None,
        grad.masked_fill(~visible, torch.inf),
        1.0,
    )
    for ours, theirs in zip(outside, expected, strict=True):
        assert torch.equal(ours, theirs)
    everywhere, _, _ = run(kernels, arrangement, torch.full_like(clean, torch.nan), intervals, None, grad, 1.0)
    assert torch.equal(everywhere.isnan(), visible)
    assert (everywhere[~visible] == 0).all()
