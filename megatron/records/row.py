"""One row of a batch as an architecture arranged it: fixed length, numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron.records.visibility import Intervals


@dataclass(frozen=True, eq=False)
class Row:
    """tokens, labels, position_ids: int32 [s]. loss_mask: float32 [s], 1 where the label carries loss.

    intervals: int32 [s, 2], the keys that each position may see.
    """

    tokens: NDArray[np.int32]
    labels: NDArray[np.int32]
    loss_mask: NDArray[np.float32]
    position_ids: NDArray[np.int32]
    intervals: Intervals

    def __post_init__(self) -> None:
        length = len(self.tokens)
        for name in ("labels", "loss_mask", "position_ids", "intervals"):
            if len(getattr(self, name)) != length:
                raise ValueError(f"{name} has {len(getattr(self, name))} positions, tokens has {length}")
