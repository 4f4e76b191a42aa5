"""An additive bias that depends on the distance between key and query alone: ALiBi and T5's relative positions."""

from __future__ import annotations

from torch import Tensor


def expand_distance_bias(distance_bias: Tensor, num_keys: int) -> Tensor:
    """The matrix [h, s_q, s_k] that a bias by distance [h, s_q + s_k - 1] stands for.

    Entry (q, k) is distance_bias[:, k - q + s_q - 1]. For kernels that take nothing smaller.
    """
    return distance_bias.unfold(-1, num_keys, 1).flip(-2)
