"""Cross entropy over a vocabulary that is spread over the tensor-parallel group."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from megatron.device.capabilities import reads_back_for_free
from megatron.device.native import native_ops_available
from megatron.layout.grid import Grid
from megatron.losses.loss_sum import LossSum
from megatron.records.batch import Batch


def token_cross_entropy(
    logits: Tensor, batch: Batch, grid: Grid, *, vocabulary_size: int, z_loss_coeff: float = 0.0
) -> LossSum:
    """Sum of the cross entropy of all target tokens, with an optional z-loss.

    logits: [s, b, padded vocabulary / TP], or [n, 1, same] of the batch's `head_positions`, any floating type; the
    computation is in float32. Columns at or beyond `vocabulary_size` (padding) take no part. z-loss adds
    z_loss_coeff * log(Z)^2 for each target token, Z being the softmax denominator (Chowdhery et al. 2022, section 5).
    """
    width = logits.shape[-1]
    first = grid.tensor_rank * width
    num_real = min(max(vocabulary_size - first, 0), width)
    labels, loss_mask = batch.labels.t(), batch.loss_mask.t()
    if batch.head_positions is not None:
        position, row = batch.head_positions
        labels, loss_mask = labels[position, row].unsqueeze(1), loss_mask[position, row].unsqueeze(1)
    labels = labels - first
    losses, z_losses = _VocabParallelCrossEntropy.apply(logits, labels, num_real, z_loss_coeff, grid.tensor_group)
    is_target = loss_mask > 0
    # `where` rather than a product: a position without loss must not spread its NaN.
    total = torch.where(is_target, losses, 0.0).sum()
    z_loss = None if z_losses is None else torch.where(is_target, z_losses, 0.0).sum()
    return LossSum(total=total, count=is_target.sum().to(torch.int), z_loss=z_loss)


class _VocabParallelCrossEntropy(torch.autograd.Function):
    """Losses float32 [s, b] from logits [s, b, v], and the part of them that is z-loss, without a gradient, or None.

    The logits' memory is reused for exponentials and gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, num_real: int, z_loss_coeff: float, group: ProcessGroup
    ) -> tuple[Tensor, Tensor | None]:
        shape = logits.shape
        flat = logits.detach().view(-1, shape[-1])
        real = flat[:, :num_real].float()  # shares memory with the logits when they are float32 already
        labels = labels.reshape(-1)
        here = (labels >= 0) & (labels < num_real)
        index = torch.where(here, labels, 0)

        target = real.gather(1, index[:, None]).squeeze(1) if num_real else real.new_zeros(len(flat))
        own_top, own_sum = exponentials_in_place(real)
        top = own_top.clone()
        all_reduce(top, dist.ReduceOp.MAX, group)
        # What this rank's exponentials lack to those of logits minus the largest of all ranks.
        factor = (own_top - top).exp() if num_real else torch.zeros_like(top)
        sums = torch.stack([own_sum * factor, torch.where(here, target - top, 0.0)])
        all_reduce(sums, dist.ReduceOp.SUM, group)
        denominator, target = sums
        log_denominator = denominator.log()
        log_partition = log_denominator + top
        losses = (log_denominator - target).view(shape[:-1])
        z_losses = None
        if z_loss_coeff:
            z_losses = z_loss_coeff * log_partition.square().view(shape[:-1])
            losses = losses + z_losses
            ctx.mark_non_differentiable(z_losses)
        ctx.save_for_backward(real, factor / denominator, index, here, log_partition)
        ctx.shape, ctx.dtype, ctx.num_real, ctx.z_loss_coeff = shape, logits.dtype, num_real, z_loss_coeff
        return losses, z_losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        exponentials, share, index, here, log_partition = ctx.saved_tensors
        grad_losses = grad_outputs[0].reshape(-1)
        weight = grad_losses * (1.0 + 2.0 * ctx.z_loss_coeff * log_partition) * share
        if ctx.num_real:
            exponentials.mul_(weight[:, None])
            # A position without loss gives no gradient, not even the NaN that zero times NaN would be.
            no_loss = grad_losses == 0
            if not reads_back_for_free(no_loss.device) or no_loss.any():
                exponentials.masked_fill_(no_loss[:, None], 0.0)
            exponentials.scatter_add_(1, index[:, None], torch.where(here, -grad_losses, 0.0)[:, None])
        if ctx.num_real == ctx.shape[-1]:
            grad = exponentials.to(ctx.dtype)
        else:
            grad = exponentials.new_zeros(len(index), ctx.shape[-1], dtype=ctx.dtype)
            grad[:, : ctx.num_real] = exponentials
        return grad.view(ctx.shape), None, None, None, None


def exponentials_in_place(logits: Tensor) -> tuple[Tensor, Tensor]:
    """logits float32 [n, v] become exp(logits - largest of the row); the largest and the sum of each row."""
    if logits.device.type == "cpu" and native_ops_available():
        largest, sums = torch.ops.triarch.exponentials_(logits)
        return largest, sums
    if not logits.shape[1]:
        return logits.new_full(logits.shape[:1], float("-inf")), logits.new_zeros(logits.shape[:1])
    largest = logits.amax(dim=-1)
    return largest, logits.sub_(largest[:, None]).exp_().sum(dim=-1)


def all_reduce(tensor: Tensor, operation: dist.ReduceOp.RedOpType, group: ProcessGroup) -> None:
    """dist.all_reduce, without its cost where the group has one member."""
    if group.size() > 1:
        dist.all_reduce(tensor, operation, group=group)
