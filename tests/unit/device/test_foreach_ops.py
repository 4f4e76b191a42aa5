"""Norm and scaling of gradients against one flat float64 vector, and that megatron-core's clipping uses them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.device import foreach_ops
from megatron.device.device import choose_device

NOOP = torch.zeros(1, dtype=torch.int)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 2**31))
def test_norm_is_that_of_the_flat_vector(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(size, generator=generator) for size in sizes]
    norm, nothing = foreach_ops.l2_norm(1, NOOP, [tensors], False)
    assert nothing is None and norm.shape == (1,)
    assert norm.item() == pytest.approx(torch.cat(tensors).double().norm().item(), rel=1e-6)


def test_norm_keeps_what_is_not_finite() -> None:
    norm, _ = foreach_ops.l2_norm(1, NOOP, [[torch.ones(3), torch.tensor([torch.nan])]], False)
    assert norm.isnan().item()


@pytest.mark.parametrize("in_place", [True, False])
def test_scale_writes_into_the_second_list(in_place: bool) -> None:
    sources = [torch.randn(3), torch.randn(2, 5)]
    expected = [0.25 * tensor for tensor in sources]
    targets = sources if in_place else [torch.empty_like(tensor) for tensor in sources]
    before = [tensor.clone() for tensor in sources]
    foreach_ops.scale(1, NOOP, (sources, targets), 0.25)
    assert all(torch.equal(one, other) for one, other in zip(targets, expected, strict=True))
    if not in_place:
        assert all(torch.equal(one, other) for one, other in zip(sources, before, strict=True))


def test_megatron_core_clips_with_them() -> None:
    choose_device("cpu")
    from megatron.core.optimizer import clip_grads

    assert clip_grads.l2_norm_impl is foreach_ops.l2_norm
    assert clip_grads.multi_tensor_scale_impl is foreach_ops.scale
