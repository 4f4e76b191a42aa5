"""Cross entropy over a vocabulary that is spread over the tensor-parallel group."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from megatron.layout.grid import Grid
from megatron.losses.loss_sum import LossSum
from megatron.records.batch import Batch


def token_cross_entropy(
    logits: Tensor, batch: Batch, grid: Grid, *, vocabulary_size: int, z_loss_coeff: float = 0.0
) -> LossSum:
    """Sum of the cross entropy of all target tokens, with an optional z-loss.

    logits: [s, b, padded vocabulary / TP], any floating type; the computation is in float32. Columns at or beyond
    `vocabulary_size` (padding) take no part. z-loss adds z_loss_coeff * log(Z)^2 for each target token, Z being the
    softmax denominator (Chowdhery et al. 2022, section 5).
    """
    width = logits.shape[-1]
    first = grid.tensor_rank * width
    num_real = min(max(vocabulary_size - first, 0), width)
    labels = batch.labels.t() - first
    losses = _VocabParallelCrossEntropy.apply(logits, labels, num_real, z_loss_coeff, grid.tensor_group)
    mask = batch.loss_mask.t()
    # `where` rather than a product: a position without loss must not spread its NaN.
    total = torch.where(mask > 0, losses, 0.0).sum()
    return LossSum(total=total, count=(mask > 0).sum().to(torch.int))


class _VocabParallelCrossEntropy(torch.autograd.Function):
    """Losses float32 [s, b] from logits [s, b, v]; the logits' memory is reused for the probabilities."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, num_real: int, z_loss_coeff: float, group: ProcessGroup
    ) -> Tensor:
        shape = logits.shape
        flat = logits.detach().view(-1, shape[-1])
        real = flat[:, :num_real].float()  # shares memory with the logits when they are float32 already
        labels = labels.reshape(-1)
        here = (labels >= 0) & (labels < num_real)
        index = torch.where(here, labels, 0)

        top = real.amax(dim=-1) if num_real else real.new_full((len(flat),), float("-inf"))
        _all_reduce(top, dist.ReduceOp.MAX, group)
        real.sub_(top[:, None])
        target = real.gather(1, index[:, None]).squeeze(1).where(here, 0.0) if num_real else real.new_zeros(len(flat))
        real.exp_()
        denominator = real.sum(dim=-1)
        sums = torch.stack([denominator, target])
        _all_reduce(sums, dist.ReduceOp.SUM, group)
        denominator, target = sums
        log_denominator = denominator.log()
        log_partition = log_denominator + top
        losses = log_denominator - target
        if z_loss_coeff:
            losses = losses + z_loss_coeff * log_partition.square()
        real.div_(denominator[:, None])
        ctx.save_for_backward(real, index, here, log_partition)
        ctx.shape, ctx.dtype, ctx.num_real, ctx.z_loss_coeff = shape, logits.dtype, num_real, z_loss_coeff
        return losses.view(shape[:-1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        probabilities, index, here, log_partition = ctx.saved_tensors
        grad_losses = grad_outputs[0].reshape(-1)
        weight = grad_losses * (1.0 + 2.0 * ctx.z_loss_coeff * log_partition)
        if ctx.num_real:
            probabilities.mul_(weight[:, None])
            # A position without loss gives no gradient, not even the NaN that zero times NaN would be.
            probabilities.masked_fill_((grad_losses == 0)[:, None], 0.0)
            probabilities.scatter_add_(1, index[:, None], torch.where(here, -grad_losses, 0.0)[:, None])
        if ctx.num_real == ctx.shape[-1]:
            grad = probabilities.to(ctx.dtype)
        else:
            grad = probabilities.new_zeros(len(index), ctx.shape[-1], dtype=ctx.dtype)
            grad[:, : ctx.num_real] = probabilities
        return grad.view(ctx.shape), None, None, None, None


def _all_reduce(tensor: Tensor, operation: dist.ReduceOp.RedOpType, group: ProcessGroup) -> None:
    if group.size() > 1:
        dist.all_reduce(tensor, operation, group=group)
