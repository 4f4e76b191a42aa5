"""One row of a batch as an architecture arranged it: fixed length, numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron.records.visibility import Intervals


@dataclass(frozen=True, eq=False)
class EncoderRow:
    """What the encoder reads, and which part of it the decoder sees.

    tokens, position_ids: int32 [s_enc]. intervals: int32 [s_enc, 2], the encoder keys of each encoder position.
    cross_intervals: int32 [s_dec, 2], the encoder keys of each decoder position.
    """

    tokens: NDArray[np.int32]
    position_ids: NDArray[np.int32]
    intervals: Intervals
    cross_intervals: Intervals

    def __post_init__(self) -> None:
        _require_length(self, len(self.tokens), ("position_ids", "intervals"))


@dataclass(frozen=True, eq=False)
class Row:
    """tokens, labels, position_ids: int32 [s]. loss_mask: float32 [s], 1 where the label carries loss.

    intervals: int32 [s, 2], the keys that each position may see. encoder: the second stream of an encoder-decoder,
    whose decoder is the first.
    """

    tokens: NDArray[np.int32]
    labels: NDArray[np.int32]
    loss_mask: NDArray[np.float32]
    position_ids: NDArray[np.int32]
    intervals: Intervals
    encoder: EncoderRow | None = None

    def __post_init__(self) -> None:
        _require_length(self, len(self.tokens), ("labels", "loss_mask", "position_ids", "intervals"))
        if self.encoder is not None:
            _require_length(self.encoder, len(self.tokens), ("cross_intervals",))


def _require_length(row: object, length: int, names: tuple[str, ...]) -> None:
    for name in names:
        if len(getattr(row, name)) != length:
            raise ValueError(f"{name} has {len(getattr(row, name))} positions instead of {length}")
