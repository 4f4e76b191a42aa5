"""Cross attention: queries of one stream over keys and values of another."""

from __future__ import annotations

from typing import Any

from megatron.core.transformer.attention import Attention, CrossAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from megatron.attention.core_attention import AttentionInputs
from megatron.modeling.forward_only import is_forward_only
from megatron.modeling.norms import Norm


class CrossAttention(Attention):
    """megatron-core's attention with separate projections; unlike its own cross attention it takes grouped keys.

    linear_q: [heads x d, h]. linear_kv: [groups x 2 x d, h], the key rows of a group before its value rows. Both are
    cut over heads and groups by tensor parallelism. q_layernorm, k_layernorm: as in self attention, one for all heads.
    """

    def __init__(
        self, config: TransformerConfig, submodules: CrossAttentionSubmodules, layer_number: int, **arguments: Any
    ) -> None:
        super().__init__(
            config=config,
            submodules=submodules,
            layer_number=layer_number,
            attn_mask_type=AttnMaskType.padding,
            attention_type="cross",
            **arguments,
        )
        for name, width in (("linear_q", self.query_projection_size), ("linear_kv", 2 * self.kv_projection_size)):
            linear = getattr(submodules, name)(
                config.hidden_size,
                width,
                config=config,
                init_method=config.init_method,
                gather_output=False,
                bias=config.add_bias_linear or config.add_qkv_bias,
                skip_bias_add=False,
                is_expert=False,
            )
            setattr(self, name, linear)
        for name in ("q_layernorm", "k_layernorm"):
            norm = Norm(config, self.hidden_size_per_attention_head, config.layernorm_epsilon)
            setattr(self, name, norm if config.qk_layernorm else IdentityOp())

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: AttentionInputs,
        key_value_states: Tensor | None = None,
        **arguments: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """[s_q, b, h] over [s_k, b, h] -> ([s_q, b, h], bias).

        megatron-core's layers hand cross attention a mask and nothing else, so the mask is where the inputs come in.
        """
        if not is_forward_only(self):
            return super().forward(
                hidden_states, None, key_value_states=key_value_states, packed_seq_params=attention_mask, **arguments
            )
        assert key_value_states is not None, "the other stream is the context of the layer"
        query, key, value = self.get_query_key_value_tensors(hidden_states, key_value_states)
        attended: tuple[Tensor, Tensor | None] = self.linear_proj(
            self.core_attention(query, key, value, None, packed_seq_params=attention_mask)
        )
        return attended

    def get_query_key_value_tensors(
        self, hidden_states: Tensor, key_value_states: Tensor, **_: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query [s_q, b, local heads, d], key and value [s_k, b, local groups, d]."""
        width = self.hidden_size_per_attention_head
        query, _ = self.linear_q(hidden_states)
        keys_and_values, _ = self.linear_kv(key_value_states)
        query = query.view(*query.shape[:2], self.num_attention_heads_per_partition, width)
        groups = self.num_query_groups_per_partition
        key, value = keys_and_values.view(*keys_and_values.shape[:2], groups, 2, width).unbind(-2)
        return self.q_layernorm(query), self.k_layernorm(key), value
