"""Sizes of the buckets in which megatron-core keeps weights and gradients of a chunk, without allocating them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from megatron.architectures.weights import Weight

ALIGNED_WEIGHT, ALIGNED_BUCKET = 64, 128  # numbers at whose multiples a weight and a bucket begin
SMALLEST_BUCKET = 40_000_000
BUCKET_PER_RANK = 1_000_000


def bucket_sizes(
    weights: Iterable[Weight], *, tensor_size: int, data_size: int, is_split: bool, is_sharded: bool
) -> list[int]:
    """Numbers in each bucket of a chunk, padding included, in the order in which the backward pass fills them.

    Follows megatron-core 0.16's `param_and_grad_buffer.py`: weights in reverse order, in one bucket, or where
    `is_split` (reductions overlap with the backward pass) in several of at least 40 million numbers. is_sharded: ranks
    divide the optimizer's state, so that weights and buckets are aligned, and weights with copies on other stages have
    buckets of their own.
    """
    limit = max(SMALLEST_BUCKET, BUCKET_PER_RANK * data_size) if is_split else math.inf
    unit = math.lcm(data_size, ALIGNED_BUCKET) if is_sharded else 1
    alignment = ALIGNED_WEIGHT if is_sharded else 1
    sizes: list[int] = []
    filled = 0
    for weight in reversed(list(weights)):
        stands_alone = weight.has_copies and is_sharded
        if stands_alone and filled:
            sizes.append(_up_to_multiple(filled, unit))
            filled = 0
        filled = _up_to_multiple(filled, alignment) + weight.local_size(tensor_size)
        if stands_alone or filled >= limit:
            sizes.append(_up_to_multiple(filled, unit))
            filled = 0
    return [*sizes, _up_to_multiple(filled, unit)] if filled else sizes


def _up_to_multiple(number: int, unit: int) -> int:
    return -(-number // unit) * unit
