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
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019) over the last dimension, as the config says.

    With layernorm_zero_centered_gamma the weight is what the factor has above one, and begins at zero (Megatron's
    --apply-layernorm-1p; Gemma). Then 16-bit numbers pass float32, because bfloat16 has no 1 + weight between 1 and
    1.0078.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.shape, self.eps = (hidden_size,), eps
        self.is_zero_centred = config.layernorm_zero_centered_gamma
        self.weight = nn.Parameter(torch.full((hidden_size,), initial_norm_weight(config), dtype=config.params_dtype))
        self.bias = (
            nn.Parameter(torch.zeros(hidden_size, dtype=config.params_dtype))
            if config.normalization == "LayerNorm"
            else None
        )
        for parameter in self.parameters():
            parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., h] -> [..., h], same dtype."""
        if not self.is_zero_centred:
            return self._normalised(hidden, self.weight, self.bias)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(wide)
        return self._normalised(hidden.to(wide), 1 + self.weight.to(wide), bias).to(hidden.dtype)

    def _normalised(self, hidden: Tensor, factor: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None:
            return F.layer_norm(hidden, self.shape, factor, bias, self.eps)
        if hidden.device.type == "cpu" and native_ops_available():
            return torch.ops.triarch.rms_norm(hidden, factor, self.eps)[0]
        return F.rms_norm(hidden, self.shape, factor, self.eps)


def initial_norm_weight(config: TransformerConfig) -> float:
    """The weight with which a norm changes nothing but the scale."""
    return 0.0 if config.layernorm_zero_centered_gamma else 1.0
