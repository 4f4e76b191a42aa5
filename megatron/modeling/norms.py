"""LayerNorm and RMSNorm for megatron-core's layers.

megatron-core's own torch norm refuses sequence parallelism; this one marks its weights, so that their gradients are
summed over the tensor-parallel group, where each rank normalises its own part of the sequence. On CPU torch composes
RMSNorm of elementwise ops and a mean; a native op does it in one pass forward and one backward.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from megatron.device.native import native_ops_available


class Norm(nn.Module):
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019) over the last dimension, as the config says."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.shape, self.eps = (hidden_size,), eps
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype))
        self.bias = (
            nn.Parameter(torch.zeros(hidden_size, dtype=config.params_dtype))
            if config.normalization == "LayerNorm"
            else None
        )
        for parameter in self.parameters():
            parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., h] -> [..., h], same dtype."""
        if self.bias is not None:
            return F.layer_norm(hidden, self.shape, self.weight, self.bias, self.eps)
        if hidden.device.type == "cpu" and native_ops_available():
            return torch.ops.triarch.rms_norm(hidden, self.weight, self.eps)[0]
        return F.rms_norm(hidden, self.shape, self.weight, self.eps)
