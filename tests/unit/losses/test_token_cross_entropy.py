"""The vocabulary-parallel cross entropy against torch's own in float64."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from megatron.device.native import native_ops_available
from megatron.losses.token_cross_entropy import token_cross_entropy
from megatron.records.batch import Batch, Visibility
from tests.oracles.one_process_model import one_process_grid

LENGTH, ROWS, VOCABULARY, PADDED = 7, 3, 50, 64
# Logits of these types carry a relative rounding of 2^-8 and 2^-11; the computation itself is in float32.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def batch_with(labels, loss_mask):
    nothing = Visibility(torch.zeros(len(labels), labels.shape[1], 2, dtype=torch.int32), labels.shape[1])
    return Batch(tokens=labels, labels=labels, loss_mask=loss_mask, position_ids=labels, visibility=nothing)


def example(seed=0, size=3.0, length=LENGTH, rows=ROWS, vocabulary=VOCABULARY, padded=PADDED):
    """Logits [s, b, padded], and a batch with labels [b, s] and about one target in two."""
    generator = torch.Generator().manual_seed(seed)
    logits = size * torch.randn(length, rows, padded, generator=generator)
    labels = torch.randint(0, vocabulary, (rows, length), generator=generator)
    mask = torch.randint(0, 2, (rows, length), generator=generator).float()
    return logits, batch_with(labels, mask)


def reference(logits, batch, z_loss_coeff=0.0, vocabulary=VOCABULARY):
    """Sum of losses in float64, and its gradient in the logits."""
    logits = logits.detach().double().requires_grad_()
    real = logits[..., :vocabulary].transpose(0, 1)
    losses = cross_entropy(real.flatten(0, 1), batch.labels.flatten(), reduction="none")
    losses = losses + z_loss_coeff * real.flatten(0, 1).logsumexp(-1) ** 2
    total = losses[batch.loss_mask.flatten() > 0].sum()
    return float(total.detach()), torch.autograd.grad(total, logits)[0]


def ours(logits, batch, **settings):
    """(sum of losses, count, gradient in the logits)."""
    leaf = logits.clone().requires_grad_()
    # The memory of the logits is reused, so the function works on what a layer gave and never on a leaf.
    vocabulary = settings.pop("vocabulary_size", VOCABULARY)
    loss = token_cross_entropy(leaf * 1, batch, one_process_grid(), vocabulary_size=vocabulary, **settings)
    return float(loss.total.detach()), int(loss.count), torch.autograd.grad(loss.total, leaf)[0]


@pytest.fixture(params=["native ops", "plain torch"])
def implementation(request, monkeypatch):
    if request.param == "plain torch":
        monkeypatch.setattr("megatron.losses.token_cross_entropy.native_ops_available", lambda: False)
    elif not native_ops_available():
        pytest.skip("the native ops are not built")


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("z_loss_coeff", [0.0, 1e-2])
@pytest.mark.parametrize("padded", [VOCABULARY, PADDED])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_loss_and_gradient(dtype, padded, z_loss_coeff):
    logits, batch = example(padded=padded)
    logits = logits.to(dtype)
    expected, expected_gradient = reference(logits, batch, z_loss_coeff)
    total, count, gradient = ours(logits, batch, z_loss_coeff=z_loss_coeff)
    assert count == int(batch.loss_mask.sum())
    assert total == pytest.approx(expected, rel=2e-6)
    assert gradient.dtype == dtype
    assert torch.allclose(gradient.double(), expected_gradient, rtol=TOLERANCE[dtype], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    size=st.sampled_from([1e-3, 1.0, 30.0, 1000.0]),
    length=st.integers(1, 9),
    rows=st.integers(1, 4),
    vocabulary=st.integers(1, 60),
    padding=st.integers(0, 20),
)
def test_any_shape_and_size(seed, size, length, rows, vocabulary, padding):
    logits, batch = example(seed, size, length, rows, vocabulary, vocabulary + padding)
    expected, expected_gradient = reference(logits, batch, vocabulary=vocabulary)
    total, _, gradient = ours(logits, batch, vocabulary_size=vocabulary)
    assert total == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert torch.allclose(gradient.double(), expected_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("filling", [float("nan"), float("inf"), float("-inf"), 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_stands_in_the_padding_never_matters(dtype, filling):
    logits, batch = example()
    logits = logits.to(dtype)
    plain = ours(logits, batch, z_loss_coeff=1e-3)
    logits[..., VOCABULARY:] = filling
    filled = ours(logits, batch, z_loss_coeff=1e-3)
    assert filled[:2] == plain[:2]
    assert torch.equal(filled[2], plain[2])
    assert not filled[2][..., VOCABULARY:].any()


def test_positions_without_loss_never_matter():
    logits, batch = example()
    plain = ours(logits, batch, z_loss_coeff=1e-3)
    silent = batch.loss_mask.t() == 0
    assert silent.any() and not silent.all()
    assert not plain[2][silent].any()
    logits[silent] = 1e4
    assert ours(logits, batch, z_loss_coeff=1e-3)[:2] == plain[:2]


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("z_loss_coeff", [0.0, 1e-2])
def test_logits_of_chosen_positions(z_loss_coeff):
    logits, batch = example()
    expected, expected_gradient = reference(logits, batch, z_loss_coeff)
    # Out of order, and two that carry no loss among them.
    targets = batch.loss_mask.t().nonzero().flip(0)
    silent = (batch.loss_mask.t() == 0).nonzero()[:2]
    position, row = chosen = torch.cat([silent, targets]).t()
    total, count, gradient = ours(
        logits[position, row].unsqueeze(1), replace(batch, head_positions=chosen), z_loss_coeff=z_loss_coeff
    )
    assert count == len(targets)
    assert total == pytest.approx(expected, rel=2e-6)
    assert torch.allclose(gradient[:, 0].double(), expected_gradient[position, row], rtol=2e-6, atol=1e-6)


def test_nan_of_a_position_without_loss_stays_where_it_is():
    logits, batch = example()
    plain = ours(logits, batch)
    silent = batch.loss_mask.t() == 0
    logits[silent] = float("nan")
    total, count, gradient = ours(logits, batch)
    assert (total, count) == plain[:2]
    assert torch.equal(gradient[~silent], plain[2][~silent])
    assert not gradient[silent].any()


def test_nan_of_a_target_is_not_hidden():
    logits, batch = example()
    logits[batch.loss_mask.t() > 0] = float("nan")
    assert ours(logits, batch)[0] != ours(logits, batch)[0]


def test_no_target_at_all():
    logits, batch = example()
    total, count, gradient = ours(logits, batch_with(batch.labels, torch.zeros(ROWS, LENGTH)))
    assert (total, count) == (0.0, 0)
    assert not gradient.any()


def test_z_loss_is_the_square_of_the_log_partition():
    logits = torch.zeros(1, 1, 64)  # log Z = log 50
    batch = batch_with(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1))
    log_partition = float(torch.tensor(50.0).log())
    assert ours(logits, batch)[0] == pytest.approx(log_partition)
    assert ours(logits, batch, z_loss_coeff=0.5)[0] == pytest.approx(log_partition + 0.5 * log_partition**2)


@pytest.mark.skipif(not native_ops_available(), reason="the native ops are not built")
def test_torch_accepts_the_op_and_it_refuses_other_logits():
    logits = torch.randn(5, 33)
    exact = logits.double()
    torch.library.opcheck(torch.ops.triarch.exponentials_.default, (logits.clone(),))
    largest, sums = torch.ops.triarch.exponentials_(logits)
    torch.testing.assert_close(largest.double(), exact.amax(-1))
    torch.testing.assert_close(logits.double(), (exact - exact.amax(-1, keepdim=True)).exp(), rtol=1e-6, atol=0)
    torch.testing.assert_close(sums.double(), logits.double().sum(-1), rtol=1e-6, atol=0)
    with pytest.raises(TypeError, match="float32"):
        torch.ops.triarch.exponentials_(logits.double())
    with pytest.raises(ValueError, match="dense rows"):
        torch.ops.triarch.exponentials_(logits.t())
