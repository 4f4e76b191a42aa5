"""The native interval softmax and its twin against float64, plain torch and each other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.attention.interval_softmax import interval_softmax, interval_softmax_twin
from megatron.device.native import native_ops_available
from tests.oracles.attention_cases import (
    KINDS,
    assert_at_most_twice_the_error,
    one_of_each_kind,
    plain_softmax,
    random_intervals,
)

needs_native = pytest.mark.skipif(not native_ops_available(), reason="the native ops are not built")
IMPLEMENTATIONS = [pytest.param(interval_softmax, marks=needs_native, id="native"), interval_softmax_twin]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def forward_and_gradients(function, scores, intervals, bias, scale, grad):
    """Results in float64: probabilities, gradient of the scores, gradient of the bias."""
    scores = scores.detach().requires_grad_()
    bias = None if bias is None else bias.detach().requires_grad_()
    probs = function(scores, intervals, bias, scale)
    inputs = [scores] if bias is None else [scores, bias]
    return [probs.detach(), *torch.autograd.grad(probs, inputs, grad.to(probs.dtype))]


def assert_as_exact_as_plain_torch(function, scores, intervals, bias, scale):
    grad = torch.randn(scores.shape).to(scores.dtype)
    exact = forward_and_gradients(
        plain_softmax, scores.double(), intervals, None if bias is None else bias.double(), scale, grad
    )
    plain = forward_and_gradients(plain_softmax, scores, intervals, bias, scale, grad)
    ours = forward_and_gradients(function, scores, intervals, bias, scale, grad)
    for name, result, yardstick, truth in zip(("probs", "grad", "grad_bias"), ours, plain, exact, strict=False):
        # Plain torch makes NaN of the gradient through an empty row, in float64 too.
        assert_at_most_twice_the_error(result, torch.nan_to_num(yardstick), torch.nan_to_num(truth), name)


@pytest.mark.parametrize("function", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
def test_error_is_at_most_twice_that_of_plain_torch(function, dtype, with_bias):
    for num_queries, num_keys in [(97, 97), (33, 1025), (1, 1)]:
        intervals = one_of_each_kind(num_queries, num_keys)
        scores = (2 * torch.randn(len(intervals), 4, num_queries, num_keys)).to(dtype)
        bias = torch.randn(4, num_queries + num_keys - 1) if with_bias else None
        assert_as_exact_as_plain_torch(function, scores, intervals, bias, 0.37)


@needs_native
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 130), st.integers(1, 130), st.sampled_from(KINDS), st.booleans(), st.integers(0, 10**6))
def test_any_size_agrees_with_the_twin(num_queries, num_keys, kind, with_bias, seed):
    torch.manual_seed(seed)
    scores = torch.randn(2, 2, num_queries, num_keys)
    bias = torch.randn(2, num_queries + num_keys - 1) if with_bias else None
    intervals = random_intervals(kind, 2, num_queries, num_keys, seed)
    grad = torch.randn_like(scores)
    native = forward_and_gradients(interval_softmax, scores, intervals, bias, 0.5, grad)
    twin = forward_and_gradients(interval_softmax_twin, scores, intervals, bias, 0.5, grad)
    for ours, theirs in zip(native, twin, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_rows_sum_to_one_inside_and_are_zero_outside(function, dtype):
    scores = torch.randn(3, 2, 50, 70).to(dtype)
    intervals = random_intervals("any", 3, 50, 70, seed=5)
    probs = function(scores, intervals, None, 1.0)
    assert probs.dtype == dtype
    keys = torch.arange(70)
    visible = (keys >= intervals[..., :1]) & (keys < intervals[..., 1:])
    assert (probs[~visible[:, None].expand_as(probs)] == 0).all()
    is_seen = visible.any(-1)[:, None].expand(3, 2, 50)
    torch.testing.assert_close(probs.double().sum(-1), is_seen.double(), rtol=0, atol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("function", IMPLEMENTATIONS)
def test_what_a_query_does_not_see_cannot_reach_it(function):
    """NaN and infinity beside the interval, as an unwritten buffer may hold them, change nothing."""
    intervals = random_intervals("any", 2, 40, 60, seed=3)
    keys = torch.arange(60)
    hidden = ((keys < intervals[..., :1]) | (keys >= intervals[..., 1:]))[:, None].expand(2, 2, 40, 60)
    clean = torch.randn(2, 2, 40, 60)
    grad = torch.randn_like(clean)
    dirty, dirty_grad = clean.clone(), grad.clone()
    dirty[hidden] = torch.nan
    dirty[..., ::7][hidden[..., ::7]] = torch.inf
    if function is interval_softmax:  # plain torch multiplies 0 by the incoming gradient
        dirty_grad[hidden] = torch.nan
    expected = forward_and_gradients(function, clean, intervals, None, 1.0, grad)
    for ours, theirs in zip(
        forward_and_gradients(function, dirty, intervals, None, 1.0, dirty_grad), expected, strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("function", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_in_a_visible_score_stays_visible(function, dtype):
    scores = torch.randn(1, 1, 3, 200).to(dtype)
    scores[0, 0, 1, 77] = torch.nan
    intervals = torch.tensor([[[0, 200], [10, 100], [80, 200]]], dtype=torch.int32)
    probs = function(scores, intervals, None, 1.0)
    assert probs[0, 0, 1, 10:100].isnan().all()
    assert (probs[0, 0, 1, :10] == 0).all() and (probs[0, 0, 1, 100:] == 0).all()
    assert probs[0, 0, [0, 2]].isfinite().all()


@pytest.mark.parametrize("function", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_huge_scores_neither_overflow_nor_vanish(function, dtype):
    scores = (torch.rand(1, 2, 31, 65).sub(0.5) * 2e4).to(dtype)
    scores[..., 3] = -torch.inf  # a masked score, as some callers write it
    assert_as_exact_as_plain_torch(function, scores, random_intervals("bidirectional", 1, 31, 65), None, 1.0)


@needs_native
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_long_rows(dtype):
    scores = torch.randn(1, 1, 3, 40_001).to(dtype)
    assert_as_exact_as_plain_torch(interval_softmax, scores, random_intervals("any", 1, 3, 40_001), None, 2.0)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_16_bit_number_survives_the_conversion(dtype):
    """With p = (1, 1) and g = (x, 0) the weighted mean is x, so with scale -1 the second gradient is x again."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    values = values[values.isfinite()]
    grad = torch.stack([values, torch.zeros_like(values)], dim=-1)[None, None]
    intervals = torch.tensor([0, 2], dtype=torch.int32).repeat(1, len(values), 1)
    result, _ = torch.ops.triarch.interval_softmax_backward(grad, torch.ones_like(grad), intervals, False, -1.0)
    assert torch.equal(result[0, 0, :, 1], values)


@needs_native
def test_in_place_equals_out_of_place():
    scores, bias = torch.randn(2, 3, 65, 65), torch.randn(3, 129)
    intervals = random_intervals("prefix", 2, 65, 65)
    probs = torch.ops.triarch.interval_softmax(scores, intervals, bias, 0.3)
    in_place = scores.clone()
    torch.ops.triarch.interval_softmax_(in_place, intervals, bias, 0.3)
    assert torch.equal(in_place, probs)
    grad = torch.randn_like(probs)
    expected = torch.ops.triarch.interval_softmax_backward(grad, probs, intervals, True, 0.3)
    grad_bias = torch.ops.triarch.interval_softmax_backward_(grad, probs, intervals, True, 0.3)
    assert torch.equal(grad, expected[0]) and torch.equal(grad_bias, expected[1])


@needs_native
def test_result_does_not_depend_on_the_number_of_threads():
    scores, bias = torch.randn(2, 3, 200, 200), torch.randn(3, 399)
    intervals = random_intervals("causal", 2, 200, 200)
    grad = torch.randn_like(scores)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = forward_and_gradients(interval_softmax, scores, intervals, bias, 1.0, grad)
        torch.set_num_threads(3)
        together = forward_and_gradients(interval_softmax, scores, intervals, bias, 1.0, grad)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@needs_native
def test_permuted_and_sliced_inputs():
    scores = torch.randn(20, 30, 2, 3).permute(2, 3, 0, 1)
    bias = torch.randn(3, 100)[:, 10:59]
    intervals = random_intervals("any", 2, 40, 30)[:, ::2]
    torch.testing.assert_close(
        interval_softmax(scores, intervals, bias, 1.0), interval_softmax_twin(scores, intervals, bias, 1.0)
    )


@needs_native
def test_gradcheck_in_float64():
    scores = torch.randn(2, 2, 5, 7, dtype=torch.float64, requires_grad=True)
    intervals = random_intervals("any", 2, 5, 7)
    assert torch.autograd.gradcheck(lambda s: interval_softmax(s, intervals, None, 0.7), (scores,))


@needs_native
@pytest.mark.parametrize("with_bias", [False, True])
def test_torch_accepts_the_ops(with_bias):
    """Schemas, meta kernels, autograd registration and compilation, as torch.library.opcheck tests them."""
    scores = torch.randn(2, 3, 9, 11)
    bias = torch.randn(3, 19) if with_bias else None
    intervals = random_intervals("any", 2, 9, 11)
    ops = torch.ops.triarch
    trained = None if bias is None else bias.clone().requires_grad_()
    torch.library.opcheck(ops.interval_softmax.default, (scores.clone().requires_grad_(), intervals, trained, 0.5))
    torch.library.opcheck(ops.interval_softmax_.default, (scores.clone(), intervals, bias, 0.5))
    probs = ops.interval_softmax(scores, intervals, bias, 0.5)
    gradient = (scores.clone(), probs, intervals, with_bias, 0.5)
    torch.library.opcheck(ops.interval_softmax_backward.default, gradient)
    torch.library.opcheck(ops.interval_softmax_backward_.default, gradient)


@needs_native
def test_wrong_shapes_are_refused():
    scores, intervals = torch.randn(2, 3, 9, 11), random_intervals("any", 2, 9, 11)
    for bad in ((scores[0], intervals, None), (scores, intervals[:1], None), (scores, intervals, torch.randn(3, 18))):
        with pytest.raises(ValueError, match="interval_softmax"):
            interval_softmax(*bad, 1.0)
    for bad in ((scores, intervals.long(), None), (scores.int(), intervals, None)):
        with pytest.raises(TypeError, match="interval_softmax"):
            interval_softmax(*bad, 1.0)


@needs_native
@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0)])
def test_nothing_to_do(shape):
    batch, _, num_queries, _ = shape
    scores = torch.randn(shape, requires_grad=True)
    probs = interval_softmax(scores, torch.zeros(batch, num_queries, 2, dtype=torch.int32), None, 1.0)
    assert probs.shape == shape
    assert torch.autograd.grad(probs.sum(), scores)[0].shape == shape
