"""Layers of an encoder-decoder that stand in one megatron-core block: both streams pass through every layer.

The decoder's states travel as the block's hidden states, the encoder's as its context. An encoder layer rewrites the
context and lets the decoder's states ride along, a decoder layer reads the context. The last layer of a stage lays both
behind one another, as the next stage takes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayerSubmodules
from torch import Tensor

from megatron.attention.core_attention import AttentionInputs
from megatron.modeling.layer import Layer
from megatron.modeling.norms import Norm


@dataclass
class StreamInputs(AttentionInputs):
    """What the layers of both stacks need to attend; it rides on `packed_seq_params` like its parent.

    encoder, decoder, cross: of the encoder, of the decoder, and from the decoder into the encoder. Angles: rotary ones
    of each stream, or None. Biases by distance are trained, so that they must be arguments of what is computed again:
    those of both stacks come as the block's attention mask, float32 [local heads, n], `encoder_distances` columns of
    the encoder's first.
    """

    encoder: AttentionInputs | None = None
    decoder: AttentionInputs | None = None
    cross: AttentionInputs | None = None
    encoder_angles: Tensor | None = None
    decoder_angles: Tensor | None = None
    encoder_distances: int = 0


class EncoderLayer(Layer):
    """Rewrites the encoder's stream. final_norm: the stack's last layer ends with its norm."""

    def __init__(
        self,
        config: TransformerConfig,
        submodules: TransformerLayerSubmodules,
        layer_number: int = 1,
        *,
        final_norm: bool,
        ends_stage: bool,
        **arguments: Any,
    ) -> None:
        super().__init__(config, submodules, layer_number, **arguments)
        self.ends_stage = ends_stage
        self.final_norm = Norm(config, config.hidden_size, config.layernorm_epsilon) if final_norm else None

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        context: Tensor | None = None,
        packed_seq_params: StreamInputs | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """(decoder states [s_dec, b, h] as they came, encoder states [s_enc, b, h], which may be none)."""
        inputs = packed_seq_params
        assert inputs is not None and context is not None, "an encoder-decoder passes both streams through its block"
        if not len(context):  # what the decoder reads of them is in its cache
            return _leave(hidden_states, context, self.ends_stage)
        bias = None if attention_mask is None else attention_mask[:, : inputs.encoder_distances]
        encoded = super().forward(
            context, attention_mask=bias, rotary_pos_emb=inputs.encoder_angles, packed_seq_params=inputs.encoder
        )[0]
        if self.final_norm is not None:
            encoded = self.final_norm(encoded)
        return _leave(hidden_states, encoded, self.ends_stage)


class DecoderLayer(Layer):
    """Rewrites the decoder's stream, which sees the encoder's."""

    def __init__(
        self,
        config: TransformerConfig,
        submodules: TransformerLayerSubmodules,
        layer_number: int = 1,
        *,
        ends_stage: bool,
        **arguments: Any,
    ) -> None:
        super().__init__(config, submodules, layer_number, **arguments)
        self.ends_stage = ends_stage

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        context: Tensor | None = None,
        packed_seq_params: StreamInputs | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """(decoder states [s_dec, b, h], encoder states [s_enc, b, h] as they came)."""
        inputs = packed_seq_params
        assert inputs is not None and context is not None, "an encoder-decoder passes both streams through its block"
        bias = None if attention_mask is None else attention_mask[:, inputs.encoder_distances :]
        hidden_states = super().forward(
            hidden_states,
            attention_mask=bias,
            context=context,
            context_mask=inputs.cross,
            rotary_pos_emb=inputs.decoder_angles,
            packed_seq_params=inputs.decoder,
        )[0]
        return _leave(hidden_states, context, self.ends_stage)


def _leave(hidden: Tensor, encoded: Tensor, ends_stage: bool) -> tuple[Tensor, Tensor | None]:
    return (torch.cat([encoded, hidden]), None) if ends_stage else (hidden, encoded)
