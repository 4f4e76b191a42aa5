"""Adafactor against transformers' for whole matrices, and the rules of projections, padding and loss units."""

import pytest
import torch
from transformers.optimization import Adafactor as Reference

from megatron.layout.row_blocks import PADDING, RowBlocks, block_of_rows
from megatron.loop.adafactor import Adafactor, Placed

SHAPES = {"factored": (160, 130), "narrow": (160, 40), "vector": (300,)}


def placed(weight, *, widths=None, words=None, can_factor=True):
    rows = len(weight)
    numbers = block_of_rows(widths or (rows,), rows)
    numbers[words or rows :] = PADDING
    sizes = tuple(torch.bincount(numbers[numbers != PADDING]).tolist())
    columns = weight.shape[1] if weight.dim() == 2 else 1
    return Placed(weight=weight, blocks=RowBlocks(numbers, sizes), cut=None, columns=columns, can_factor=can_factor)


def gradients(shape, steps=20, seed=0):
    """Of changing size, some of them large, so that updates are clipped at some steps and not at others."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.rand(steps, generator=generator).mul(4).exp()
    return [torch.randn(shape, generator=generator) * size for size in sizes]


def train(weight, each, *, scale=1.0, lr=0.05, **settings):
    weight = weight.clone()
    optimizer = Adafactor([placed(weight, **settings)], lr)
    for gradient in each:
        weight.grad = gradient * scale
        optimizer.step()
    return weight, optimizer.state[weight]


def train_reference(weight, each, *, lr=0.05):
    weight = weight.clone()
    optimizer = Reference([weight], lr=lr, scale_parameter=True, relative_step=False, warmup_init=False)
    for gradient in each:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight, optimizer.state[weight]


def weight_of(shape, seed=9, std=0.3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * std


@pytest.mark.parametrize("kind", SHAPES)
def test_twenty_steps_are_those_of_transformers(kind):
    shape = SHAPES[kind]
    weight, each = weight_of(shape), gradients(shape)
    got, state = train(weight, each)
    if kind == "narrow":  # the reference factors every matrix, and T5X those with both sides of at least 128
        weight, each = weight.flatten(), [gradient.flatten() for gradient in each]
    expected, theirs = train_reference(weight, each)
    torch.testing.assert_close(got.view_as(expected), expected, rtol=2e-5, atol=1e-6)
    assert float((got.view_as(weight) - weight).norm() / weight.norm()) > 0.1
    names = {"exp_avg_sq_row", "exp_avg_sq_col"} if kind == "factored" else {"exp_avg_sq"}
    assert state.keys() == names
    for name in names:
        torch.testing.assert_close(state[name].view_as(theirs[name]), theirs[name], rtol=1e-5, atol=0.0)


def test_tables_of_positions_are_never_factored():
    shape = SHAPES["factored"]
    got, state = train(weight_of(shape), gradients(shape), can_factor=False)
    assert state.keys() == {"exp_avg_sq"}
    expected, _ = train_reference(weight_of(shape).flatten(), [gradient.flatten() for gradient in gradients(shape)])
    torch.testing.assert_close(got.flatten(), expected, rtol=2e-5, atol=1e-6)


def test_stacked_projections_are_matrices_by_themselves():
    """Two groups of 128 query rows, 64 key rows and 64 value rows, and queries of another size."""
    widths, rows, columns = (128, 64, 64), 512, 140
    weight, each = weight_of((rows, columns)), gradients((rows, columns))
    groups = [slice(0, 128), slice(256, 384)], [slice(128, 192), slice(384, 448)], [slice(192, 256), slice(448, 512)]
    members = [[number for part in group for number in range(rows)[part]] for group in groups]
    weight[members[0]] *= 0.1
    each = [gradient * torch.linspace(0.1, 3, rows)[:, None] for gradient in each]
    got, state = train(weight, each, widths=widths)
    assert state["exp_avg_sq_col"].shape == (3, columns)
    for member in members:
        expected, _ = train_reference(weight[member], [gradient[member] for gradient in each])
        torch.testing.assert_close(got[member], expected, rtol=2e-5, atol=1e-6)
    one_block, _ = train(weight, each)
    assert not torch.allclose(one_block, got, rtol=1e-3)


def test_words_that_do_not_exist_change_nothing():
    shape, words = (200, 130), 150
    weight = weight_of(shape)
    weight[words:] = 0.0
    each = gradients(shape)
    for gradient in each:
        gradient[words:] = 0.0
    got, _ = train(weight, each, words=words)
    expected, _ = train(weight[:words].clone(), [gradient[:words] for gradient in each])
    assert torch.equal(got[words:], weight[words:])
    torch.testing.assert_close(got[:words], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_sum_over_the_batch_trains_like_a_mean(kind):
    """The study summed its loss over a batch of about 1.2 million tokens; ours is the mean of them."""
    shape, tokens = SHAPES[kind], 2.0**20
    weight = weight_of(shape)
    each = [gradient * 1e-3 for gradient in gradients(shape)]
    summed, _ = train(weight, each, scale=tokens)
    mean, _ = train(weight, each)
    torch.testing.assert_close(mean, summed, rtol=1e-6, atol=1e-7)


def test_eps1_is_where_a_sum_and_a_mean_differ():
    """Gradients whose squares come near 1e-30 are damped, and those of a sum are not that small."""
    shape, tokens = SHAPES["vector"], 2.0**20
    each = [gradient * 1e-17 for gradient in gradients(shape, steps=3)]
    summed, _ = train(weight_of(shape), each, scale=tokens)
    mean, _ = train(weight_of(shape), each)
    moved = float((summed - weight_of(shape)).norm())
    assert float((mean - weight_of(shape)).norm()) < 0.5 * moved


def test_a_weight_of_zeros_moves_by_eps2():
    """The step is a share of the weight's size, and of 1e-3 where it has none; the first update has a size of 1."""
    weight = torch.zeros(SHAPES["factored"])
    (gradient,) = gradients(SHAPES["factored"], steps=1)
    got, _ = train(weight, [gradient], lr=0.01)
    assert float(got.square().mean().sqrt()) == pytest.approx(0.01 * 1e-3, rel=1e-2)


def test_without_a_gradient_nothing_moves():
    weight = weight_of((4, 4))
    before = weight.clone()
    Adafactor([placed(weight)], 0.1).step()
    assert torch.equal(weight, before)
