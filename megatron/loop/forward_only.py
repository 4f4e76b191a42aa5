"""Outputs of the model without gradients, on any layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor, nn

from megatron.attention.key_value_cache import KeyValueCache
from megatron.records.batch import Batch

Read = TypeVar("Read")


@torch.inference_mode()
def read_outputs(
    chunks: Sequence[nn.Module],
    batches: Sequence[Batch],
    read: Callable[[Batch, Tensor], Read],
    cache: KeyValueCache | None = None,
) -> list[Read]:
    """read(batch, outputs) for each micro-batch, on the last pipeline stage; an empty list on the others.

    outputs: what the last chunk gives, for a decoder logits [s, b, padded vocabulary / TP]. The chunks should be in
    eval mode. cache: of the rows of the one batch, whose next positions the batch holds. A collective of the
    model-parallel processes; interleaved chunks take multiples of the pipeline size.
    """
    first = batches[0]
    iterators = [iter(batches) for _ in chunks]
    return get_forward_backward_func()(
        forward_step_func=partial(_forward, read, cache),
        data_iterator=iterators if len(chunks) > 1 else iterators[0],
        model=list(chunks) if len(chunks) > 1 else chunks[0],
        num_microbatches=len(batches),
        seq_length=first.stream_length,
        micro_batch_size=len(first.tokens),
        forward_only=True,
        collect_non_loss_data=True,
    )


def _forward(
    read: Callable[[Batch, Tensor], Read], cache: KeyValueCache | None, batches: Iterator[Batch], chunk: nn.Module
) -> tuple[Tensor, Callable[..., Read]]:
    batch = next(batches)

    def read_this(outputs: Tensor, **_: Any) -> Read:
        return read(batch, outputs)

    return chunk(batch) if cache is None else chunk(batch, cache), read_this
