"""The loops for older processors compute the same: each level in a process of its own, against float64."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron.basics.errors import UserError
from megatron.device import native
from megatron.device.native import native_ops_available

BASELINE = "the baseline instruction set"
ROOT = Path(__file__).parents[3]
COMPARE = """
import torch
from megatron.attention import fused_softmax, reference
from megatron.attention.interval_softmax import interval_softmax
from megatron.records.batch import Visibility
from tests.oracles.attention_cases import KINDS, one_of_each_kind

torch.manual_seed(1)
visibility = Visibility(one_of_each_kind(107, 107), 107)
inputs = [torch.randn(len(KINDS), heads, 107, 20, requires_grad=True) for heads in (4, 2, 2)]
bias = torch.randn(4, 213, requires_grad=True)
grad = torch.randn(len(KINDS), 4, 107, 20)

def results(attend, dtype):
    context = attend(*inputs, visibility, scale=0.3, distance_bias=bias)
    return [context, *torch.autograd.grad(context, [*inputs, bias], grad.to(context.dtype))]

for own, exact in zip(results(fused_softmax.attend, torch.float32), results(reference.attend, torch.float64)):
    torch.testing.assert_close(own.double(), exact.double(), rtol=1e-4, atol=1e-5)

scores = torch.randn(len(KINDS), 4, 107, 107)
probs = interval_softmax(scores, visibility.intervals, None, 1.0)
exact = scores.double().masked_fill(~visibility.dense, -torch.inf).softmax(-1).nan_to_num(0.0)
torch.testing.assert_close(probs.double(), exact, rtol=1e-5, atol=1e-7)

logits = torch.randn(9, 1001)
exact = (logits.double() - logits.double().amax(-1, keepdim=True)).exp()
_, sums = torch.ops.triarch.exponentials_(logits)
torch.testing.assert_close(sums.double(), exact.sum(-1), rtol=1e-6, atol=0)

hidden, grad = torch.randn(3, 134), torch.randn(3, 67)
for function in ("relu", "gelu", "gelu_tanh", "silu"):
    ours, exact = (
        (torch.ops.triarch.activation(x, None, function, True),
         torch.ops.triarch.activation_backward(g, x, None, function, True)[0])
        for x, g in ((hidden, grad), (hidden.double(), grad.double()))
    )
    for own, true in zip(ours, exact):
        torch.testing.assert_close(own.double(), true, rtol=1e-5, atol=1e-6)

hidden, weight, grad = torch.randn(7, 107), torch.randn(107), torch.randn(7, 107)

def normed(convert):
    output, inverses = torch.ops.triarch.rms_norm(convert(hidden), convert(weight), 1e-3)
    return [output, *torch.ops.triarch.rms_norm_backward(convert(grad), convert(hidden), convert(weight), inverses)]

for own, exact in zip(normed(torch.Tensor.float), normed(torch.Tensor.double)):
    torch.testing.assert_close(own.double(), exact, rtol=1e-5, atol=1e-6)
print(torch.ops.triarch.cpu_loops())
"""


@pytest.mark.skipif(not native_ops_available(), reason="the native ops are not built")
@pytest.mark.parametrize(("level", "name"), [("baseline", BASELINE), ("avx2", "AVX2")])
def test_every_instruction_set_computes_the_same(level, name):
    done = subprocess.run(
        [sys.executable, "-c", COMPARE],
        cwd=ROOT,
        env={**os.environ, "TRIARCH_CPU_LEVEL": level, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    best = torch.ops.triarch.cpu_loops()
    assert done.stdout.strip() == (BASELINE if best == BASELINE else name)


def test_an_unknown_level_is_answered(monkeypatch):
    monkeypatch.setenv("TRIARCH_CPU_LEVEL", "avx")
    with pytest.raises(UserError, match="TRIARCH_CPU_LEVEL=avx is not known; set it to avx2 or baseline"):
        native_ops_available.__wrapped__()


@pytest.mark.skipif(not native_ops_available(), reason="the native ops are not built")
def test_a_library_that_is_older_than_the_code_is_left_alone(monkeypatch, caplog):
    monkeypatch.setattr(native, "OPS", (*native.OPS, "op_of_tomorrow"))
    assert not native_ops_available.__wrapped__()
    assert "is older than this code; run `make setup` again" in caplog.text
