"""megatron-core's pre-norm layer, with a short way for passes without gradients."""

from __future__ import annotations

from typing import Any

from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor

from megatron.modeling.forward_only import is_forward_only


class Layer(TransformerLayer):
    """Self attention, cross attention where the layer has one, and feed-forward, each behind a norm, beside a sum."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        context: Tensor | None = None,
        packed_seq_params: Any = None,
        **arguments: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """(states [s, b, h], context as it came).

        attention_mask, and context_mask among the arguments: see CoreAttention and CrossAttention. packed_seq_params:
        AttentionInputs.
        """
        if not is_forward_only(self):
            passed: tuple[Tensor, Tensor | None] = super().forward(
                hidden_states, attention_mask, context, packed_seq_params=packed_seq_params, **arguments
            )
            return passed
        attended = self.self_attention(
            self.input_layernorm(hidden_states),
            attention_mask,
            rotary_pos_emb=arguments.get("rotary_pos_emb"),
            packed_seq_params=packed_seq_params,
        )
        hidden = _added(hidden_states, *attended)
        if not isinstance(self.cross_attention, IdentityOp):
            normed = self.pre_cross_attn_layernorm(hidden)
            crossed = self.cross_attention(normed, arguments["context_mask"], key_value_states=context)
            hidden = _added(hidden, *crossed)
        return _added(hidden, *self.mlp(self.pre_mlp_layernorm(hidden))), context


def _added(residual: Tensor, output: Tensor, bias: Tensor | None) -> Tensor:
    """residual + (output + bias), in the storage of the output."""
    if bias is not None:
        output = output.add_(bias)
    return output.add_(residual)
