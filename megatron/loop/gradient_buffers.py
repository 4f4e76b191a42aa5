"""Sizes of the buckets in which megatron-core keeps weights and gradients of a chunk, without allocating them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from megatron.architectures.weights import Weight
from megatron.layout.options import LayoutOptions

ALIGNED_WEIGHT, ALIGNED_BUCKET = 64, 128  # numbers at whose multiples a weight and a bucket begin
SMALLEST_BUCKET = 40_000_000
BUCKET_PER_RANK = 1_000_000


def bucket_sizes(
    weights: Iterable[Weight], layout: LayoutOptions, data_size: int, *, is_first_chunk: bool
) -> list[int]:
    """Numbers in each bucket of a chunk, padding included, in the order in which the backward pass fills them.

    Follows megatron-core 0.16's `param_and_grad_buffer.py` with a sharded optimizer: weights in reverse order; those
    with copies on other stages in buckets of their own; otherwise one bucket, or where reductions overlap with the
    backward pass several of at least 40 million numbers on the first chunk.
    """
    limit = math.inf
    if layout.overlap_grad_reduce and is_first_chunk:
        limit = max(SMALLEST_BUCKET, BUCKET_PER_RANK * data_size)
    unit = math.lcm(data_size, ALIGNED_BUCKET)
    sizes: list[int] = []
    filled = 0

    def close() -> None:
        nonlocal filled
        if filled:
            sizes.append(_up_to_multiple(filled, unit))
        filled = 0

    for weight in reversed(list(weights)):
        if weight.has_copies:
            close()
        filled = _up_to_multiple(filled, ALIGNED_WEIGHT) + weight.local_size(layout.tensor_model_parallel_size)
        if weight.has_copies or filled >= limit:
            close()
    close()
    return sizes


def _up_to_multiple(number: int, unit: int) -> int:
    return -(-number // unit) * unit
