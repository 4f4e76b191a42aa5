"""Norm and scaling of all gradients for megatron-core where neither Transformer Engine nor Apex is installed.

megatron-core's own stand-ins loop over the gradients: on a GPU the norm makes the host wait once for every parameter,
and clipping writes a scaled copy before it copies it back. These are torch's multi-tensor functions with the same
signatures.
"""

from __future__ import annotations

import torch
from torch import Tensor


def l2_norm(
    chunk_size: int, noop_flag: Tensor, tensor_lists: list[list[Tensor]], per_tensor: bool
) -> tuple[Tensor, None]:
    """Euclidean norm of all tensors of the one list together, float32 [1], on their device; nothing is waited for."""
    (tensors,) = tensor_lists
    assert not per_tensor, "megatron-core asks for the total alone"
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors))).reshape(1), None


def scale(chunk_size: int, noop_flag: Tensor, tensor_lists: tuple[list[Tensor], list[Tensor]], factor: float) -> None:
    """Write each tensor of the first list times `factor` into its partner in the second, which may be itself."""
    sources, targets = tensor_lists
    if sources is not targets:
        torch._foreach_copy_(targets, sources)
    torch._foreach_mul_(targets, factor)


def install_where_missing() -> None:
    """Put them into megatron-core's clipping unless Transformer Engine or Apex provide theirs."""
    import megatron.core.optimizer.clip_grads as clipping
    from megatron.core.utils import local_multi_tensor_l2_norm, local_multi_tensor_scale

    if clipping.l2_norm_impl is local_multi_tensor_l2_norm:
        clipping.l2_norm_impl = l2_norm
    if clipping.multi_tensor_scale_impl is local_multi_tensor_scale:
        clipping.multi_tensor_scale_impl = scale
