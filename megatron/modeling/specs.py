"""A Transformer stack as megatron-core's ModuleSpec, assembled from our options."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.transformer.attention import CrossAttentionSubmodules, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_layer import TransformerLayerSubmodules
from torch import Tensor

from megatron.attention.core_attention import CoreAttention
from megatron.attention.registry import AttentionBackend
from megatron.layout.stages import Stage
from megatron.modeling.cross_attention import CrossAttention
from megatron.modeling.encoder_decoder_layers import DecoderLayer, EncoderLayer
from megatron.modeling.feed_forward import FeedForward
from megatron.modeling.layer import Layer
from megatron.modeling.linear import ColumnLinear, RowLinear
from megatron.modeling.norms import Norm
from megatron.modeling.options import ModelOptions
from megatron.modeling.positions import distances, relative_buckets
from megatron.modeling.self_attention import SelfAttention


def decoder_block_spec(options: ModelOptions, attend: AttentionBackend, num_layers: int) -> TransformerBlockSubmodules:
    """`num_layers` pre-norm layers of self attention and feed-forward, and the final norm."""
    layer = ModuleSpec(
        module=Layer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=Norm,
            self_attention=self_attention_spec(options, attend, owns_bias_table=True),
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=Norm,
            mlp=FeedForward,
            mlp_bda=get_bias_dropout_add,
        ),
    )
    return TransformerBlockSubmodules(layer_specs=[layer] * num_layers, layer_norm=Norm)


def encoder_decoder_block_spec(
    options: ModelOptions, attend: AttentionBackend, stage: Stage
) -> TransformerBlockSubmodules:
    """The layers of one stage of an encoder-decoder, cut out of encoder layers followed by decoder layers.

    Biases by distance come from outside of the layers where these share them; cross attention has none.
    """
    owns = options.relative_bias_per_layer
    encoder_attention = self_attention_spec(options, attend, owns_bias_table=owns, bidirectional=True)
    decoder_attention = self_attention_spec(options, attend, owns_bias_table=owns)
    parts: dict[str, Any] = {
        "input_layernorm": Norm,
        "self_attn_bda": get_bias_dropout_add,
        "pre_mlp_layernorm": Norm,
        "mlp": FeedForward,
        "mlp_bda": get_bias_dropout_add,
    }
    cross: dict[str, Any] = {
        "pre_cross_attn_layernorm": Norm,
        "cross_attention": cross_attention_spec(attend),
        "cross_attn_bda": get_bias_dropout_add,
    }
    specs = []
    end = stage.first_layer + stage.num_layers
    for number in range(stage.first_layer, end):
        params = {"ends_stage": number == end - 1 and not stage.holds_head}
        if number < options.encoder_layers:
            params["final_norm"] = number == options.encoder_layers - 1
            encoder_layer = TransformerLayerSubmodules(**parts, self_attention=encoder_attention)
            specs.append(ModuleSpec(EncoderLayer, params, encoder_layer))
        else:
            decoder_layer = TransformerLayerSubmodules(**parts, **cross, self_attention=decoder_attention)
            specs.append(ModuleSpec(DecoderLayer, params, decoder_layer))
    return TransformerBlockSubmodules(layer_specs=specs, layer_norm=None)


def cross_attention_spec(attend: AttentionBackend) -> ModuleSpec:
    """Cross attention with our core attention."""
    return ModuleSpec(
        module=CrossAttention,
        submodules=CrossAttentionSubmodules(
            linear_q=ColumnLinear,
            linear_kv=ColumnLinear,
            core_attention=ModuleSpec(module=CoreAttention, params={"attend": attend}),
            linear_proj=RowLinear,
        ),
    )


def self_attention_spec(
    options: ModelOptions, attend: AttentionBackend, *, owns_bias_table: bool, bidirectional: bool = False
) -> ModuleSpec:
    """Self attention with our core attention; the mask type is ours to say, through the visibility.

    owns_bias_table: with relative positions the layer has a table of its own, as the decoders of Wang et al. 2022 have.
    bidirectional: half of its buckets are for keys behind the query.
    """
    core_params: dict[str, object] = {"attend": attend}
    if owns_bias_table and options.position_embedding_type == "relative":
        core_params |= {
            "relative_buckets": options.relative_attention_num_buckets,
            "bucket_function": partial(buckets_of, options, bidirectional),
        }
    return ModuleSpec(
        module=SelfAttention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=ColumnLinear,
            core_attention=ModuleSpec(module=CoreAttention, params=core_params),
            linear_proj=RowLinear,
            q_layernorm=Norm if options.qk_layernorm else IdentityOp,
            k_layernorm=Norm if options.qk_layernorm else IdentityOp,
        ),
    )


def buckets_of(
    options: ModelOptions, bidirectional: bool, num_queries: int, num_keys: int, device: torch.device
) -> Tensor:
    """T5's bucket of each distance between queries and keys, the last of which are the queries' own.

    int64 [s_q + s_k - 1].
    """
    return relative_buckets(
        distances(num_queries, num_keys, device),
        options.relative_attention_num_buckets,
        options.relative_attention_max_distance,
        bidirectional=bidirectional,
    )
