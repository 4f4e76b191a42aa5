"""Which projection each row of a stacked matrix belongs to: query, key and value; gate and up; key and value.

megatron-core keeps projections of one input in one matrix. Where they must be told apart, in their initial weights and
in optimizers with statistics of whole matrices, each is a block of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PADDING = -1


@dataclass(frozen=True, eq=False)
class RowBlocks:
    """Blocks of one parameter on this rank.

    numbers: int64 [local rows], the block of each row; PADDING for rows of words that do not exist. sizes: rows of each
    block in the whole parameter.
    """

    numbers: Tensor
    sizes: tuple[int, ...]


def block_of_rows(widths: Sequence[int], rows: int) -> Tensor:
    """The block of each row, int64 [rows], where `widths` rows of each block in turn repeat to the end.

    Widths 2, 1, 1 and 8 rows, two groups of two query rows, a key row and a value row, give 0 0 1 2 0 0 1 2.
    """
    period = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths))
    return period.repeat(rows // len(period))
