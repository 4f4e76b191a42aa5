"""Gradients of the native ops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def register() -> None:
    """Tell autograd the derivatives of the ops. Call once, after the library is loaded."""
    for name, backward, setup_context in (
        ("interval_softmax", _softmax_backward, _keep_probabilities),
        ("interval_attention", _attention_backward, _keep_log_sums),
        ("activation", _activation_backward, _keep_inputs),
        ("rms_norm", _rms_norm_backward, _keep_inverses),
    ):
        torch.library.register_autograd(f"triarch::{name}", backward, setup_context=setup_context)


def _keep_probabilities(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, intervals, _, scale = inputs
    ctx.save_for_backward(output, intervals)
    ctx.scale = scale


def _softmax_backward(ctx: Any, grad_probs: Tensor) -> tuple[Tensor | None, ...]:
    probs, intervals = ctx.saved_tensors
    has_bias = ctx.needs_input_grad[2]
    grad_scores, grad_bias = torch.ops.triarch.interval_softmax_backward(
        grad_probs, probs, intervals, has_bias, ctx.scale
    )
    return grad_scores, None, grad_bias if has_bias else None, None


def _keep_log_sums(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, intervals, distance_bias, scale = inputs
    context, log_sums = output
    ctx.mark_non_differentiable(log_sums)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, value, context, log_sums, intervals, distance_bias)
    ctx.scale = scale


def _attention_backward(ctx: Any, grad_context: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad_context is None:
        return (None,) * 6
    needs_grad_bias = ctx.needs_input_grad[4]
    *gradients, grad_bias = torch.ops.triarch.interval_attention_backward(
        grad_context, *ctx.saved_tensors, needs_grad_bias, ctx.scale
    )
    return (*gradients, None, grad_bias if needs_grad_bias else None, None)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    hidden, bias, ctx.function, ctx.is_gated = inputs
    ctx.save_for_backward(hidden, bias)


def _activation_backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    grad_hidden, grad_bias = torch.ops.triarch.activation_backward(
        grad_output, *ctx.saved_tensors, ctx.function, ctx.is_gated
    )
    return grad_hidden, grad_bias if ctx.needs_input_grad[1] else None, None, None


def _keep_inverses(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    hidden, weight, _ = inputs
    inverses = output[1]
    ctx.mark_non_differentiable(inverses)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(hidden, weight, inverses)


def _rms_norm_backward(ctx: Any, grad_output: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad_output is None:
        return None, None, None
    return (*torch.ops.triarch.rms_norm_backward(grad_output, *ctx.saved_tensors), None)
