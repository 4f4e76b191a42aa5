"""softmax(scale x scores + bias) over one interval of keys a query: the native op, or its twin in plain torch.

Source of the fusion: Shoeybi et al. 2019 (Megatron-LM's scaled masked softmax); here any shape, any interval, and a
bias that depends on the distance alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from megatron.attention.distance_bias import expand_distance_bias
from megatron.device.native import native_ops_available


def interval_softmax(scores: Tensor, intervals: Tensor, distance_bias: Tensor | None, scale: float) -> Tensor:
    """Probabilities [b, h, s_q, s_k] of scores [b, h, s_q, s_k], computed in float32 (float64 for float64 scores).

    intervals: int32 [b, s_q, 2], half-open. distance_bias: float32 [h, s_q + s_k - 1] or None, entry
    (k - q) + (s_q - 1). Zero outside the interval, also for an empty one; NaN in a visible score spreads over its row.
    Differentiable in scores and distance_bias.
    """
    if native_ops_available():
        return torch.ops.triarch.interval_softmax(scores, intervals, distance_bias, scale)
    return interval_softmax_twin(scores, intervals, distance_bias, scale)


def interval_softmax_twin(scores: Tensor, intervals: Tensor, distance_bias: Tensor | None, scale: float) -> Tensor:
    """`interval_softmax` from torch's own operations: what runs where nothing could be compiled."""
    num_keys = scores.shape[-1]
    logits = scores.to(torch.promote_types(scores.dtype, torch.float32)) * scale
    if distance_bias is not None:
        logits = logits + expand_distance_bias(distance_bias, num_keys)
    keys = torch.arange(num_keys, device=scores.device, dtype=torch.int32)
    start, end = intervals[:, None, :, None, :].unbind(-1)
    hidden = (keys < start) | (keys >= end)
    # The second fill turns the NaN of an empty row into zeros; the first one stops it on the way back.
    return logits.masked_fill(hidden, -torch.inf).softmax(-1).masked_fill(hidden, 0.0).to(scores.dtype)
