"""megatron-core's self attention, with a short way for passes without gradients."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.attention import SelfAttention as CoreSelfAttention
from torch import Tensor

from megatron.attention.core_attention import AttentionInputs
from megatron.modeling.forward_only import is_forward_only


class SelfAttention(CoreSelfAttention):
    """One projection for queries, keys and values, the core attention, and the projection of what it gives."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        *,
        rotary_pos_emb: Tensor | None = None,
        packed_seq_params: AttentionInputs | None = None,
        **arguments: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """[s, b, h] -> ([s, b, h], the bias that is still to be added, or None)."""
        inputs = packed_seq_params
        if not is_forward_only(self):
            arguments |= {"rotary_pos_emb": rotary_pos_emb, "packed_seq_params": inputs}
            return super().forward(hidden_states, attention_mask, **arguments)
        assert inputs is not None, "the visibility travels on packed_seq_params"
        mixed, _ = self.linear_qkv(hidden_states)
        # Of each group of heads its queries, its key and its value: [s, b, groups, heads / groups + 2, d].
        parts = (self.num_query_groups_per_partition, -1, self.hidden_size_per_attention_head)
        mixed = mixed.view(*mixed.shape[:2], *parts)
        turned = mixed[..., :-1, :]
        if self.config.qk_layernorm:
            normed = (self.q_layernorm(turned[..., :-1, :]), self.k_layernorm(turned[..., -1:, :]))
            turned = torch.cat(normed, dim=-2)
        if rotary_pos_emb is not None:
            turned = _turned(turned, *inputs.rotation(rotary_pos_emb, turned.dtype))
        query = turned[..., :-1, :].flatten(2, 3)
        context = self.core_attention(
            query, turned[..., -1, :], mixed[..., -1, :], attention_mask, packed_seq_params=inputs
        )
        attended: tuple[Tensor, Tensor | None] = self.linear_proj(context)
        return attended


def _turned(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Queries and keys [s, b, groups, n, d], turned in their first columns, as many as the angles [s, b, 1, 1, w]."""
    width = cosine.shape[-1]
    first, second = heads[..., : width // 2], heads[..., width // 2 : width]
    turned = heads[..., :width] * cosine + torch.cat([-second, first], dim=-1) * sine
    return turned if width == heads.shape[-1] else torch.cat([turned, heads[..., width:]], dim=-1)
