"""The CUDA kernels of the interval softmax against float64 and against plain torch on the same GPU."""

import pytest
import torch

from megatron.attention import fused_softmax, reference, sdpa
from megatron.device.native import native_ops_available
from megatron.records.batch import Visibility
from tests.oracles.attention_cases import (
    KINDS,
    assert_at_most_twice_the_error,
    one_of_each_kind,
    plain_softmax,
    random_intervals,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# One length for each arrangement of threads, on and off the 16-byte grid, and beyond what registers hold.
KEY_LENGTHS = [1, 7, 128, 131, 512, 1000, 1024, 2047, 4096, 8192, 16384, 32768, 40_001]


@pytest.fixture(autouse=True)
def ops():
    assert native_ops_available(), "build csrc/ first: python setup.py build_ext --inplace"


def forward_and_gradients(function, scores, intervals, bias, scale, grad):
    scores = scores.detach().requires_grad_()
    bias = None if bias is None else bias.detach().requires_grad_()
    probs = function(scores, intervals, bias, scale)
    inputs = [scores] if bias is None else [scores, bias]
    return [probs.detach(), *torch.autograd.grad(probs, inputs, grad.to(probs.dtype))]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_keys", KEY_LENGTHS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_error_is_at_most_twice_that_of_plain_torch(dtype, num_keys, with_bias):
    num_queries = 37 if num_keys < 4000 else 5
    intervals = one_of_each_kind(num_queries, num_keys).cuda()
    scores = (2 * torch.randn(len(KINDS), 3, num_queries, num_keys, device="cuda")).to(dtype)
    bias = torch.randn(3, num_queries + num_keys - 1, device="cuda") if with_bias else None
    grad = torch.randn(scores.shape, device="cuda").to(dtype)
    exact = forward_and_gradients(
        plain_softmax, scores.double(), intervals, None if bias is None else bias.double(), 0.37, grad
    )
    plain = forward_and_gradients(plain_softmax, scores, intervals, bias, 0.37, grad)
    ours = forward_and_gradients(torch.ops.triarch.interval_softmax, scores, intervals, bias, 0.37, grad)
    for name, result, yardstick, truth in zip(("probs", "grad", "grad_bias"), ours, plain, exact, strict=False):
        assert_at_most_twice_the_error(result, torch.nan_to_num(yardstick), torch.nan_to_num(truth), name)


@pytest.mark.parametrize("num_keys", [130, 1024, 20_000])
def test_in_place_and_repeated_runs_are_bitwise_equal(num_keys):
    scores = torch.randn(2, 3, 65, num_keys, device="cuda").bfloat16()
    bias = torch.randn(3, 64 + num_keys, device="cuda")
    intervals = random_intervals("any", 2, 65, num_keys).cuda()
    ops = torch.ops.triarch
    probs = ops.interval_softmax(scores, intervals, bias, 0.3)
    in_place = scores.clone()
    ops.interval_softmax_(in_place, intervals, bias, 0.3)
    assert torch.equal(in_place, probs)
    grad = torch.randn_like(probs)
    grad_scores, grad_bias = ops.interval_softmax_backward(grad, probs, intervals, True, 0.3)
    again = ops.interval_softmax_backward_(grad, probs, intervals, True, 0.3)
    assert torch.equal(grad, grad_scores) and torch.equal(again, grad_bias)


@pytest.mark.parametrize("offset", [1, 3, 5])
def test_storage_off_the_16_byte_grid(offset):
    storage = torch.randn(2 * 3 * 20 * 50 + offset, device="cuda").half()
    scores = storage[offset:].view(2, 3, 20, 50)
    intervals = random_intervals("any", 2, 20, 50).cuda()
    ops = torch.ops.triarch
    expected = ops.interval_softmax(scores.clone(), intervals, None, 1.0)
    assert torch.equal(ops.interval_softmax(scores, intervals, None, 1.0), expected)


def test_what_a_query_does_not_see_cannot_reach_it():
    intervals = random_intervals("any", 2, 40, 300).cuda()
    hidden = ~Visibility(intervals, 300).dense.expand(2, 3, 40, 300)
    clean = torch.randn(2, 3, 40, 300, device="cuda")
    dirty = clean.masked_fill(hidden, torch.nan)
    ops = torch.ops.triarch
    probs = ops.interval_softmax(clean, intervals, None, 1.0)
    assert torch.equal(ops.interval_softmax(dirty, intervals, None, 1.0), probs)
    expected = ops.interval_softmax_backward(clean, probs, intervals, False, 1.0)[0]
    assert torch.equal(ops.interval_softmax_backward(dirty, probs, intervals, False, 1.0)[0], expected)


@pytest.mark.parametrize("with_bias", [False, True])
def test_torch_accepts_the_ops(with_bias):
    scores = torch.randn(2, 3, 9, 11, device="cuda", requires_grad=True)
    bias = torch.randn(3, 19, device="cuda", requires_grad=True) if with_bias else None
    intervals = random_intervals("any", 2, 9, 11).cuda()
    torch.library.opcheck(torch.ops.triarch.interval_softmax.default, (scores, intervals, bias, 0.5))


@pytest.mark.parametrize("attend", [fused_softmax.attend, sdpa.attend])
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_in_bfloat16(attend, is_causal):
    kind = "causal" if is_causal else "prefix"
    visibility = Visibility(random_intervals(kind, 2, 256, 256).cuda(), 256, is_causal=is_causal)
    inputs = [torch.randn(256, 2, 4, 64, device="cuda").bfloat16().permute(1, 2, 0, 3) for _ in range(3)]
    results = []
    for function in (attend, reference.attend):
        trained = [tensor.detach().requires_grad_() for tensor in inputs]
        context = function(*trained, visibility, scale=0.125, distance_bias=None)
        results.append([context, *torch.autograd.grad(context.double().square().sum(), trained)])
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), exact.double(), rtol=0.03, atol=0.03)
