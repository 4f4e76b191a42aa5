"""The feed-forward layer: on CPU, what stands between its two products is one native op.

Plain torch writes the bias sum, the activation and each half of a gated layer to memory, and joins the halves'
gradients by a copy. The op reads and writes every number once and keeps only its input for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from megatron.device.native import native_ops_available
from megatron.layout import grid as grids
from megatron.modeling.config import gelu_tanh
from megatron.modeling.linear import ColumnLinear, RowLinear

NATIVE_FUNCTIONS: dict[Callable[[Tensor], Tensor], str] = {
    F.relu: "relu",
    F.gelu: "gelu",
    gelu_tanh: "gelu_tanh",
    F.silu: "silu",
}


class FeedForward(MLP):
    """megatron-core's MLP, with the same parameters and checkpoints.

    A layer names this class itself as its feed-forward part: to a ModuleSpec around any class but MLP, TransformerLayer
    gives neither process group nor width, and warns of it.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(
            config,
            MLPSubmodules(linear_fc1=ColumnLinear, linear_fc2=RowLinear),
            ffn_hidden_size=config.ffn_hidden_size,
            tp_group=grids.current().tensor_group,
        )

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """[s, b, h] -> ([s, b, h], the bias [h] that is still to be added, or None), same dtype."""
        if hidden_states.device.type != "cpu" or not native_ops_available():
            return super().forward(hidden_states, **kwargs)
        intermediate, bias = self.linear_fc1(hidden_states)
        activated = torch.ops.triarch.activation(
            intermediate, bias, NATIVE_FUNCTIONS[self.config.activation_func], self.config.gated_linear_unit
        )
        return self.linear_fc2(activated)
