"""The feed-forward layer and the activation op in it, against megatron-core's MLP and against plain torch."""

import pytest
import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from torch.utils._python_dispatch import TorchDispatchMode

from megatron.device.native import native_ops_available
from megatron.modeling.config import ACTIVATION_FUNCTIONS
from megatron.modeling.feed_forward import NATIVE_FUNCTIONS, FeedForward
from tests.oracles.one_process_model import build_decoder, one_process_grid, recipe_of

needs_native = pytest.mark.skipif(not native_ops_available(), reason="the native ops are not built")
FUNCTIONS = {name: function for function, name in NATIVE_FUNCTIONS.items()}
every_function = pytest.mark.parametrize("function", FUNCTIONS)
gated_or_not = pytest.mark.parametrize("is_gated", [False, True], ids=["plain", "gated"])
with_or_without_bias = pytest.mark.parametrize("has_bias", [False, True], ids=["no-bias", "bias"])


def native(hidden, bias, function, is_gated):
    return torch.ops.triarch.activation(hidden, bias, function, is_gated)


def twin(hidden, bias, function, is_gated):
    hidden = hidden if bias is None else hidden + bias
    if not is_gated:
        return FUNCTIONS[function](hidden)
    gate, value = hidden.chunk(2, dim=-1)
    return FUNCTIONS[function](gate) * value


def output_and_gradients(act, hidden, bias, function, is_gated, grad):
    inputs = [part.detach().requires_grad_() for part in (hidden, bias) if part is not None]
    output = act(*inputs, *[None][len(inputs) - 1 :], function, is_gated)
    return [output.detach(), *torch.autograd.grad(output, inputs, grad)]


def case(shape, has_bias, is_gated, dtype=torch.float32, seed=0):
    """(input of `shape`, bias or None, gradient of the output)."""
    generator = torch.Generator().manual_seed(seed)
    hidden = 2 * torch.randn(shape, generator=generator)
    bias = torch.randn(shape[-1], generator=generator).to(dtype) if has_bias else None
    grad = torch.randn(*shape[:-1], shape[-1] // (2 if is_gated else 1), generator=generator)
    return hidden.to(dtype), bias, grad.to(dtype)


@needs_native
@every_function
@gated_or_not
@with_or_without_bias
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_error_is_at_most_twice_plain_torchs(function, is_gated, has_bias, dtype):
    hidden, bias, grad = case((33, 5, 194), has_bias, is_gated, dtype)
    wide = [part if part is None else part.double() for part in (hidden, bias, grad)]
    exact = output_and_gradients(twin, *wide[:2], function, is_gated, wide[2])
    ours = output_and_gradients(native, hidden, bias, function, is_gated, grad)
    plain = output_and_gradients(twin, hidden, bias, function, is_gated, grad)
    for mine, theirs, true in zip(ours, plain, exact, strict=True):
        assert mine.dtype == dtype and mine.shape == true.shape
        error, plain_error = ((result.double() - true).square().mean().sqrt() for result in (mine, theirs))
        assert error <= 2 * plain_error + 1e-15 * true.abs().max()


@needs_native
@pytest.mark.parametrize("function", ["gelu", "gelu_tanh", "silu"])
def test_the_tail_keeps_its_relative_precision(function):
    """Down to where the result leaves float32; 1 + erf and 1 + tanh lose every digit there."""
    x = torch.linspace(-12, 12, 4001)
    wide = x.double()
    if function == "gelu":
        share = 0.5 * torch.special.erfc(-wide * 0.5**0.5)
    else:
        share = (wide if function == "silu" else (8 / torch.pi) ** 0.5 * (wide + 0.044715 * wide**3)).sigmoid()
    exact = wide * share
    normal = exact.abs() > 1e-36
    relative = (native(x[None], None, function, False)[0].double() - exact).abs() / exact.abs()
    assert relative[normal].max() < 1e-5  # the rounding of the exponent is amplified
    assert relative[(x.abs() < 2) & (x != 0)].max() < 5e-7


@needs_native
@every_function
def test_nan_stays_and_infinity_passes(function):
    x = torch.tensor([[torch.nan, torch.inf, 1e30, -1e18, 0.0]])
    output = native(x, None, function, False)[0]
    assert output[0].isnan() and output[1] == torch.inf and output[2] == 1e30
    assert output[3] == 0 and output[4] == 0


@needs_native
@every_function
@gated_or_not
@with_or_without_bias
def test_gradients_are_derivatives_in_float64(function, is_gated, has_bias):
    hidden, bias, _ = case((3, 4), has_bias, is_gated, torch.float64)
    inputs = (hidden.requires_grad_(), None if bias is None else bias.requires_grad_())
    assert torch.autograd.gradcheck(lambda *parts: native(*parts, function, is_gated), inputs)


@needs_native
@with_or_without_bias
def test_result_does_not_depend_on_the_number_of_threads(has_bias):
    hidden, bias, grad = case((300, 514), has_bias, True)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = output_and_gradients(native, hidden, bias, "gelu", True, grad)
        torch.set_num_threads(3)
        together = output_and_gradients(native, hidden, bias, "gelu", True, grad)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@needs_native
def test_permuted_sliced_and_empty_inputs():
    hidden, bias = torch.randn(20, 3, 30).permute(1, 2, 0), torch.randn(40)[::2]
    grad = torch.ones(()).expand(3, 30, 10)
    for ours, plain in zip(
        output_and_gradients(native, hidden, bias, "silu", True, grad),
        output_and_gradients(twin, hidden, bias, "silu", True, grad),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain)
    for shape in ((0, 20), (4, 0)):
        hidden, bias, grad = case(shape, True, True)
        output, *gradients = output_and_gradients(native, hidden, bias, "silu", True, grad)
        assert output.shape == grad.shape and gradients[0].shape == shape
        assert torch.equal(gradients[1], torch.zeros(shape[1]))


@needs_native
@gated_or_not
@with_or_without_bias
def test_torch_accepts_the_ops(is_gated, has_bias):
    """Schemas, meta kernels, autograd registration and compilation, as torch.library.opcheck tests them."""
    hidden, bias, grad = case((3, 5, 14), has_bias, is_gated)
    gradient = (grad, hidden, bias, "gelu_tanh", is_gated)
    torch.library.opcheck(torch.ops.triarch.activation_backward.default, gradient)
    trained = None if bias is None else bias.clone().requires_grad_()
    forward = (hidden.clone().requires_grad_(), trained, "gelu_tanh", is_gated)
    torch.library.opcheck(torch.ops.triarch.activation.default, forward)


@needs_native
def test_wrong_inputs_are_refused():
    hidden, bias, _ = case((4, 9), True, False)
    for bad in (
        (hidden, None, "tanh", False),
        (hidden, None, "relu", True),
        (hidden, bias[1:], "relu", False),
        (hidden, bias[None], "relu", False),
    ):
        with pytest.raises(ValueError, match="activation"):
            native(*bad)
    for bad in ((hidden, bias.double(), "relu", False), (hidden.int(), None, "relu", False)):
        with pytest.raises(TypeError, match="activation"):
            native(*bad)
    with pytest.raises(ValueError, match="does not match"):
        torch.ops.triarch.activation_backward(hidden[:2], hidden, bias, "relu", False)


@needs_native
@with_or_without_bias
@pytest.mark.parametrize(
    ("shape", "is_gated"), [((1, 8), False), ((8,), False), ((), False), ((1, 4), True), ((2, 4), True)]
)
def test_a_gradient_of_other_rows_is_refused(shape, is_gated, has_bias):
    """Also of as many numbers as there must be, whose rows would reach beyond those of the input."""
    hidden, bias, _ = case((2, 4), has_bias, is_gated)
    with pytest.raises(ValueError, match="does not match"):
        torch.ops.triarch.activation_backward(torch.ones(shape), hidden, bias, "relu", is_gated)


def layers(activation, disable_bias_linear=False):
    """(ours, megatron-core's) with the same random weights and biases."""
    model = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "activation": activation}
    model |= {"ffn_hidden_size": 24, "disable_bias_linear": disable_bias_linear}
    config = build_decoder(recipe_of(model, max_positions=4))[0]
    parts = MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
    plain = MLP(config, parts, ffn_hidden_size=24, tp_group=one_process_grid().tensor_group)
    torch.manual_seed(1)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter)
    own = FeedForward(config)
    own.load_state_dict(plain.state_dict())
    return own, plain


@pytest.mark.parametrize("activation", ACTIVATION_FUNCTIONS)
@pytest.mark.parametrize("disable_bias_linear", [False, True], ids=["bias", "no-bias"])
def test_the_layer_is_megatron_cores(activation, disable_bias_linear):
    own, plain = layers(activation, disable_bias_linear)
    hidden = torch.randn(5, 3, 16)
    results = []
    for layer in (own, plain):
        inputs = [hidden.clone().requires_grad_(), *layer.parameters()]
        output, bias = layer(inputs[0])
        total = output if bias is None else output + bias
        results.append([total, *torch.autograd.grad(total.square().sum(), inputs)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


def test_without_native_ops_the_layer_is_megatron_cores_to_the_bit(monkeypatch):
    monkeypatch.setattr("megatron.modeling.feed_forward.native_ops_available", lambda: False)
    own, plain = layers("geglu")
    hidden = torch.randn(5, 3, 16)
    assert torch.equal(own(hidden)[0], plain(hidden)[0])


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_checkpoints_are_megatron_cores(activation):
    pair = layers(activation)
    metadata = {"dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True)}
    own, plain = (layer.sharded_state_dict("mlp.", metadata=metadata) for layer in pair)
    assert own.keys() == plain.keys()
    for name in own:
        assert type(own[name]) is type(plain[name])
        assert (own[name].key, own[name].replica_id) == (plain[name].key, plain[name].replica_id)


class OpNames(TorchDispatchMode):
    """Names of the ops that are called inside of it."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name())
        return function(*args, **(kwargs or {}))


@needs_native
def test_the_fused_op_takes_the_place_of_the_activation():
    with OpNames() as ops:
        layers("geglu_tanh")[0](torch.randn(5, 3, 16))
    assert "triarch::activation" in ops.names
    assert not {"aten::gelu", "aten::mul.Tensor", "aten::add.Tensor"} & ops.names
