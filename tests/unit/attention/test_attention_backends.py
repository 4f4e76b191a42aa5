"""Every attention backend against the float64 reference, and the reference against attention done by hand."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from megatron.attention import fused_softmax, reference, sdpa
from megatron.attention.registry import ATTENTION_BACKENDS, choose_backend
from megatron.basics.errors import UserError
from megatron.device.native import native_ops_available
from megatron.records.batch import Visibility
from tests.oracles.attention_by_hand import attention_by_hand
from tests.oracles.attention_cases import KINDS, assert_at_most_twice_the_error, one_of_each_kind, random_intervals

needs_native = pytest.mark.skipif(not native_ops_available(), reason="the native ops are not built")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=[*ATTENTION_BACKENDS, "fused_softmax without native ops"])
def backend(request, monkeypatch):
    if request.param.endswith("without native ops"):
        for module in ("fused_softmax", "interval_softmax"):
            monkeypatch.setattr(f"megatron.attention.{module}.native_ops_available", lambda: False)
    return ATTENTION_BACKENDS[request.param.split()[0]]


def random_inputs(batch, heads, groups, num_queries, num_keys, width, dtype, with_bias):
    """query, key, value as views of [s, b, heads, d] storage, as megatron-core hands them over, and the bias."""

    def draw(length, count):
        return torch.randn(length, batch, count, width).to(dtype).permute(1, 2, 0, 3).requires_grad_()

    bias = torch.randn(heads, num_queries + num_keys - 1, requires_grad=True) if with_bias else None
    return draw(num_queries, heads), draw(num_keys, groups), draw(num_keys, groups), bias


def outputs_and_gradients(attend, inputs, visibility, scale, grad):
    query, key, value, bias = inputs
    context = attend(query, key, value, visibility, scale=scale, distance_bias=bias)
    trained = [tensor for tensor in inputs if tensor is not None]
    return [context.detach(), *torch.autograd.grad(context, trained, grad.to(context.dtype))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_reference_is_attention_by_hand(kind, with_bias):
    query, key, value, bias = random_inputs(2, 4, 2, 6, 9, 3, torch.float32, with_bias)
    intervals = random_intervals(kind, 2, 6, 9)
    expected = attention_by_hand(
        *(tensor.detach().double().numpy() for tensor in (query, key, value)),
        intervals.numpy(),
        0.6,
        None if bias is None else bias.detach().double().numpy(),
    )
    context = reference.attend(query, key, value, Visibility(intervals, 9), scale=0.6, distance_bias=bias)
    torch.testing.assert_close(context.detach(), torch.from_numpy(expected))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("groups", [4, 2])
def test_error_is_at_most_twice_that_of_plain_torch(backend, dtype, with_bias, groups):
    """Longer than one query block; plain torch is its dense-mask math in the same dtype."""
    visibility = Visibility(one_of_each_kind(161, 161), 161)
    inputs = random_inputs(len(KINDS), 4, groups, 161, 161, 16, dtype, with_bias)
    grad = torch.randn(len(KINDS), 4, 161, 16).to(dtype)
    exact = outputs_and_gradients(reference.attend, inputs, visibility, 0.25, grad)
    plain = outputs_and_gradients(plain_attention, inputs, visibility, 0.25, grad)
    ours = outputs_and_gradients(backend, inputs, visibility, 0.25, grad)
    for name, result, yardstick, truth in zip(
        ("context", "grad_query", "grad_key", "grad_value", "grad_bias"), ours, plain, exact, strict=False
    ):
        assert_at_most_twice_the_error(result, yardstick, truth, name)


def plain_attention(query, key, value, visibility, *, scale, distance_bias):
    """Attention with a dense mask in the dtype of the inputs."""
    heads_per_group, num_queries, num_keys = query.shape[1] // key.shape[1], query.shape[2], key.shape[2]
    key, value = (tensor.repeat_interleave(heads_per_group, dim=1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * scale
    if distance_bias is not None:
        distance = torch.arange(num_keys) - torch.arange(num_queries)[:, None]
        scores = scores + distance_bias[:, distance + num_queries - 1].to(scores.dtype)
    scores = scores.masked_fill(~visibility.dense & visibility.seen, -torch.inf)
    return scores.softmax(-1).masked_fill(~visibility.seen, 0.0) @ value


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (1, 3, 1, 7), (2, 2, 130, 3), (1, 2, 300, 131), (2, 1, 129, 257), (1, 1, 97, 600)]
)
def test_odd_sizes(backend, shape):
    batch, heads, num_queries, num_keys = shape
    inputs = random_inputs(batch, heads, heads, num_queries, num_keys, 5, torch.float32, True)
    for kind in KINDS:
        visibility = Visibility(random_intervals(kind, batch, num_queries, num_keys), num_keys)
        grad = torch.randn(batch, heads, num_queries, 5)
        for result, truth in zip(
            outputs_and_gradients(backend, inputs, visibility, 0.5, grad),
            outputs_and_gradients(reference.attend, inputs, visibility, 0.5, grad),
            strict=True,
        ):
            torch.testing.assert_close(result.double(), truth.double(), rtol=1e-4, atol=2e-5)


def test_queries_that_see_nothing_get_zeros_and_give_zero_gradients(backend):
    inputs = random_inputs(2, 2, 2, 140, 10, 4, torch.float32, True)
    visibility = Visibility(torch.zeros(2, 140, 2, dtype=torch.int32), 10)
    for result in outputs_and_gradients(backend, inputs, visibility, 1.0, torch.randn(2, 2, 140, 4)):
        assert (result == 0).all()


def test_causal_equals_torch_causal(backend):
    query, key, value, _ = random_inputs(2, 4, 4, 70, 70, 8, torch.float32, False)
    visibility = Visibility(random_intervals("causal", 2, 70, 70), 70, is_causal=True)
    expected = scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3)
    context = backend(query, key, value, visibility, scale=0.3, distance_bias=None)
    torch.testing.assert_close(context, expected)


def test_dropout_keeps_the_mean_and_repeats_with_the_seed(backend):
    """Keys and values are all alike, so the undropped output is the value itself."""
    query = torch.randn(1, 2, 200, 4, requires_grad=True)
    key, value = torch.ones(1, 2, 200, 4), torch.ones(1, 2, 200, 4, requires_grad=True)
    visibility = Visibility(random_intervals("bidirectional", 1, 200, 200), 200)

    def run():
        torch.manual_seed(7)
        context = backend(query, key, value, visibility, scale=1.0, distance_bias=None, dropout_p=0.25)
        return context, torch.autograd.grad(context.sum(), value)[0]

    context, grad_value = run()
    again, grad_again = run()
    assert torch.equal(context, again) and torch.equal(grad_value, grad_again)
    assert not torch.allclose(context, torch.ones(()), atol=1e-3)
    assert context.mean().item() == pytest.approx(1.0, abs=0.01)
    # What an output lost, the value lost as well: both sum the same kept probabilities.
    assert grad_value.sum().item() == pytest.approx(context.sum().item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["prefix", "any"])
def test_dropout_gradients_are_those_of_the_kept_probabilities(kind, monkeypatch):
    """With the kept ones fixed, attention is a smooth function: compare with finite differences."""
    pattern = torch.Generator()

    def fixed_dropout(probs, rate, train):
        kept = torch.rand(probs.shape, generator=pattern.manual_seed(3)) > rate
        return probs * kept / (1 - rate), kept

    monkeypatch.setattr(torch, "native_dropout", fixed_dropout)
    monkeypatch.setattr(fused_softmax, "native_ops_available", lambda: True)
    if not hasattr(torch.ops.triarch, "interval_softmax_"):
        pytest.skip("the native ops are not built")
    inputs = [torch.randn(1, 2, 5, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    visibility = Visibility(random_intervals(kind, 1, 5, 5), 5)
    assert torch.autograd.gradcheck(
        lambda q, k, v: fused_softmax.attend(q, k, v, visibility, scale=0.7, distance_bias=None, dropout_p=0.3), inputs
    )


def test_auto_takes_the_fastest_that_can_do_the_job(monkeypatch):
    def chosen(**job):
        name, attend = choose_backend("auto", **job)
        assert attend is ATTENTION_BACKENDS[name]
        return name

    monkeypatch.setattr("megatron.attention.registry.native_ops_available", lambda: True)
    assert chosen() == "fused_softmax"
    assert chosen(is_causal=False) == "fused_softmax"
    assert chosen(has_bias=True) == "fused_softmax"
    assert chosen(is_cuda=True) == "sdpa"
    assert chosen(is_cuda=True, has_bias=True) == "fused_softmax"
    assert chosen(is_cuda=True, is_causal=False) == "fused_softmax"
    monkeypatch.setattr("megatron.attention.registry.native_ops_available", lambda: False)
    assert chosen() == "sdpa"
    assert chosen(has_bias=True) == "sdpa"


def test_a_named_backend_is_taken_and_a_misspelt_one_refused():
    assert choose_backend("sdpa", has_bias=True) == ("sdpa", sdpa.attend)
    with pytest.raises(UserError, match=r"--attention-backend fused_softmx .* fused_softmax"):
        choose_backend("fused_softmx")


@needs_native
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
def test_torch_accepts_the_attention_op(dtype, with_bias):
    """Schema, meta kernel, autograd registration and compilation, as torch.library.opcheck tests them."""
    query, key, value, bias = random_inputs(2, 4, 2, 9, 11, 5, dtype, with_bias)
    intervals = random_intervals("any", 2, 9, 11)
    ops = torch.ops.triarch
    torch.library.opcheck(ops.interval_attention.default, (query, key, value, intervals, bias, 0.5))
    inputs = [None if tensor is None else tensor.detach() for tensor in (query, key, value, intervals, bias)]
    context, log_sums = ops.interval_attention(*inputs, 0.5)
    gradient = (torch.randn_like(context), *inputs[:3], context, log_sums, *inputs[3:], with_bias, 0.5)
    torch.library.opcheck(ops.interval_attention_backward.default, gradient)


@needs_native
def test_the_attention_op_keeps_nothing_of_the_size_of_the_scores():
    query, key, value, _ = random_inputs(1, 2, 2, 512, 512, 8, torch.float32, False)
    visibility = Visibility(random_intervals("causal", 1, 512, 512), 512)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        fused_softmax.attend(query, key, value, visibility, scale=1.0, distance_bias=None).sum().backward()
    assert sizes and max(sizes) <= query.numel()


@needs_native
def test_the_attention_op_refuses_what_does_not_fit():
    query, key, value, _ = random_inputs(2, 4, 2, 9, 11, 5, torch.float32, False)
    intervals, op = random_intervals("any", 2, 9, 11), torch.ops.triarch.interval_attention
    for bad in (
        (query[:, :3], key, value, intervals, None),
        (query, key, value[:, :, :3], intervals, None),
        (query, key, value, intervals[:1], None),
        (query, key, value, intervals, torch.randn(4, 18)),
    ):
        with pytest.raises(ValueError, match="interval_attention"):
            op(*bad, 1.0)
    for bad in ((query.double(), key.double(), value.double(), intervals), (query, key, value, intervals.long())):
        with pytest.raises(TypeError, match="interval_attention"):
            op(*bad, None, 1.0)


@needs_native
@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0)])
def test_attention_over_nothing(shape):
    batch, heads, num_queries, num_keys = shape
    inputs = random_inputs(batch, heads, heads, num_queries, num_keys, 8, torch.float32, False)
    visibility = Visibility(torch.zeros(batch, num_queries, 2, dtype=torch.int32), num_keys)
    for result in outputs_and_gradients(fused_softmax.attend, inputs, visibility, 1.0, torch.ones(inputs[0].shape)):
        assert (result == 0).all()
