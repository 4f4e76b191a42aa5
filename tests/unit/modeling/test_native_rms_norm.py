"""The native RMSNorm against plain torch and against float64."""

import pytest
import torch
import torch.nn.functional as F

from megatron.device.native import native_ops_available

pytestmark = pytest.mark.skipif(not native_ops_available(), reason="the native ops are not built")
EPS = 1e-3


def native(hidden, weight):
    return torch.ops.triarch.rms_norm(hidden, weight, EPS)[0]


def twin(hidden, weight):
    return F.rms_norm(hidden, weight.shape, weight, EPS)


def output_and_gradients(norm, hidden, weight, grad):
    inputs = [hidden.detach().requires_grad_(), weight.detach().requires_grad_()]
    output = norm(*inputs)
    return [output.detach(), *torch.autograd.grad(output, inputs, grad)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("width", [97, 256])
def test_error_is_at_most_twice_plain_torchs(dtype, width):
    torch.manual_seed(1)
    hidden, grad = torch.randn(2, 33, 5, width).to(dtype)
    weight = torch.randn(width).to(dtype)
    exact = output_and_gradients(twin, hidden.double(), weight.double(), grad.double())
    ours = output_and_gradients(native, hidden, weight, grad)
    plain = output_and_gradients(twin, hidden, weight, grad)
    for mine, theirs, true in zip(ours, plain, exact, strict=True):
        assert mine.dtype == dtype and mine.shape == true.shape
        error, plain_error = ((result.double() - true).square().mean().sqrt() for result in (mine, theirs))
        assert error <= 2 * plain_error + 1e-15 * true.abs().max()


def test_gradients_are_derivatives_in_float64():
    hidden, weight = torch.randn(3, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(native, (hidden.requires_grad_(), weight.requires_grad_()))


def test_result_does_not_depend_on_the_number_of_threads():
    hidden, weight, grad = torch.randn(300, 257), torch.randn(257), torch.randn(300, 257)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = output_and_gradients(native, hidden, weight, grad)
        torch.set_num_threads(3)
        together = output_and_gradients(native, hidden, weight, grad)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_permuted_sliced_and_empty_inputs():
    hidden, weight = torch.randn(20, 3, 30).permute(1, 2, 0), torch.randn(40)[::2]
    grad = torch.ones(()).expand(3, 30, 20)
    ours, plain = (output_and_gradients(norm, hidden, weight, grad) for norm in (native, twin))
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs)
    *_, grad_weight = output_and_gradients(native, torch.randn(0, 20), weight, torch.randn(0, 20))
    assert torch.equal(grad_weight, torch.zeros(20))


def test_torch_accepts_the_ops():
    """Schemas, meta kernels, autograd registration and compilation, as torch.library.opcheck tests them."""
    hidden, weight, grad = torch.randn(3, 5, 14), torch.randn(14), torch.randn(3, 5, 14)
    inverses = torch.ops.triarch.rms_norm(hidden, weight, EPS)[1]
    torch.library.opcheck(torch.ops.triarch.rms_norm_backward.default, (grad, hidden, weight, inverses))
    trained = (hidden.clone().requires_grad_(), weight.clone().requires_grad_(), EPS)
    torch.library.opcheck(torch.ops.triarch.rms_norm.default, trained)


def test_wrong_inputs_are_refused():
    hidden, weight = torch.randn(4, 9), torch.randn(9)
    for bad in ((hidden, weight[1:]), (hidden, weight[None])):
        with pytest.raises(ValueError, match="rms_norm"):
            native(*bad)
    for bad in ((hidden, weight.double()), (hidden.int(), weight.int())):
        with pytest.raises(TypeError, match="rms_norm"):
            native(*bad)
    inverses = torch.ones(4)
    with pytest.raises(ValueError, match="does not match"):
        torch.ops.triarch.rms_norm_backward(hidden[:2], hidden, weight, inverses)
    with pytest.raises(ValueError, match="inverses"):
        torch.ops.triarch.rms_norm_backward(hidden, hidden, weight, inverses[:3])
    with pytest.raises(ValueError, match="inverses"):
        torch.ops.triarch.rms_norm_backward(hidden, hidden, weight, inverses.view(2, 2))


def test_rows_without_a_number():
    hidden, weight = torch.randn(4, 0), torch.randn(0)
    output, *gradients = output_and_gradients(native, hidden, weight, torch.randn(4, 0))
    assert output.shape == gradients[0].shape == (4, 0) and gradients[1].shape == (0,)
