"""Log-probabilities of given tokens from logits that are spread over the tensor-parallel group."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from megatron.layout.grid import Grid
from megatron.losses.token_cross_entropy import all_reduce, exponentials_in_place


def log_probabilities(
    logits: Tensor, positions: Tensor, tokens: Tensor, grid: Grid, *, vocabulary_size: int
) -> tuple[Tensor, Tensor]:
    """(natural logarithm of the probability, whether no token is likelier) of each question, float32 [m] and bool [m].

    logits: [n, padded vocabulary / TP], any floating type, whose memory is used up; the computation is in float32.
    Question k asks for tokens[k] where positions[k] predicts: both int64 [m], the same on all tensor ranks, which all
    get the answers. Among equally likely tokens the one with the lowest id counts as the likeliest, on any layout.
    Columns at or beyond `vocabulary_size` (padding) take no part. A collective of the tensor-parallel group.
    """
    width = logits.shape[-1]
    first = grid.tensor_rank * width
    num_real = min(max(vocabulary_size - first, 0), width)
    real = logits[:, :num_real].float()
    local = tokens - first
    here = (local >= 0) & (local < num_real)
    if num_real:
        own_likeliest = real.argmax(dim=-1) + first
        target = torch.where(here, real[positions, torch.where(here, local, 0)], 0.0)
    else:
        own_likeliest, target = tokens.new_zeros(len(real)), real.new_zeros(len(tokens))
    own_top, own_sum = exponentials_in_place(real)
    top = own_top.clone()
    all_reduce(top, dist.ReduceOp.MAX, grid.tensor_group)
    likeliest = torch.where(own_top == top, own_likeliest, vocabulary_size)
    all_reduce(likeliest, dist.ReduceOp.MIN, grid.tensor_group)
    # What this rank's exponentials lack to those of logits minus the largest of all ranks.
    factor = (own_top - top).exp() if num_real else torch.zeros_like(top)
    sums = torch.cat([own_sum * factor, target])
    all_reduce(sums, dist.ReduceOp.SUM, grid.tensor_group)
    denominator, target = sums.split([len(real), len(tokens)])
    log_partition = denominator.log() + top
    return target - log_partition[positions], likeliest[positions] == tokens
