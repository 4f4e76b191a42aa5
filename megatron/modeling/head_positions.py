"""Where the vocabulary head computes logits."""

from __future__ import annotations

from torch import Tensor

from megatron.records.batch import Batch


def at_head_positions(hidden: Tensor, batch: Batch) -> Tensor:
    """[s, b, h] -> [n, 1, h], the states of `batch.head_positions` alone; all of them where it asks for no positions.

    With 50,000 words the head of a small model costs as much as its layers, and who scores texts needs the logits of
    few positions. Not under sequence parallelism, where a rank holds a part of the states.
    """
    if batch.head_positions is None:
        return hidden
    assert len(hidden) == batch.tokens.shape[1], "positions are chosen from whole rows, without sequence parallelism"
    position, row = batch.head_positions
    return hidden[position, row].unsqueeze(1)
