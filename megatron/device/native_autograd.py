"""Gradients of the native attention ops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def register() -> None:
    """Tell autograd the derivative of triarch::interval_softmax. Call once, after the library is loaded."""
    torch.library.register_autograd("triarch::interval_softmax", _backward, setup_context=_keep_for_backward)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, intervals, _, scale = inputs
    ctx.save_for_backward(output, intervals)
    ctx.scale = scale


def _backward(ctx: Any, grad_probs: Tensor) -> tuple[Tensor | None, ...]:
    probs, intervals = ctx.saved_tensors
    has_bias = ctx.needs_input_grad[2]
    grad_scores, grad_bias = torch.ops.triarch.interval_softmax_backward(
        grad_probs, probs, intervals, has_bias, ctx.scale
    )
    return grad_scores, None, grad_bias if has_bias else None, None
