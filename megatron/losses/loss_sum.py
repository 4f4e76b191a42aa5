"""A loss before its one division: a sum over target tokens, and their count."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LossSum:
    """total: float32 scalar with a gradient. count: int scalar, the target tokens that `total` sums over.

    z_loss: float32 scalar without a gradient, the part of `total` that is z-loss; None where there is none.
    """

    total: Tensor
    count: Tensor
    z_loss: Tensor | None = None
