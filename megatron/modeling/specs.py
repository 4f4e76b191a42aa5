"""A Transformer stack as megatron-core's ModuleSpec, assembled from our options."""

from __future__ import annotations

from functools import partial

import torch
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch import Tensor

from megatron.attention.core_attention import CoreAttention
from megatron.attention.registry import AttentionBackend
from megatron.modeling.norms import Norm
from megatron.modeling.options import ModelOptions
from megatron.modeling.positions import distances, relative_buckets


def decoder_block_spec(options: ModelOptions, attend: AttentionBackend, num_layers: int) -> TransformerBlockSubmodules:
    """`num_layers` pre-norm layers of self attention and feed-forward, and the final norm."""
    layer = ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=Norm,
            self_attention=self_attention_spec(options, attend, bidirectional_buckets=False),
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=Norm,
            mlp=ModuleSpec(
                module=MLP,
                submodules=MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear),
            ),
            mlp_bda=get_bias_dropout_add,
        ),
    )
    return TransformerBlockSubmodules(layer_specs=[layer] * num_layers, layer_norm=Norm)


def self_attention_spec(options: ModelOptions, attend: AttentionBackend, *, bidirectional_buckets: bool) -> ModuleSpec:
    """Self attention with our core attention; the mask type is ours to say, through the visibility."""
    core_params: dict[str, object] = {"attend": attend}
    if options.position_embedding_type == "relative":
        core_params |= {
            "relative_buckets": options.relative_attention_num_buckets,
            "bucket_function": partial(_buckets, options, bidirectional_buckets),
        }
    return ModuleSpec(
        module=SelfAttention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=ColumnParallelLinear,
            core_attention=ModuleSpec(module=CoreAttention, params=core_params),
            linear_proj=RowParallelLinear,
            q_layernorm=Norm if options.qk_layernorm else IdentityOp,
            k_layernorm=Norm if options.qk_layernorm else IdentityOp,
        ),
    )


def _buckets(
    options: ModelOptions, bidirectional: bool, num_queries: int, num_keys: int, device: torch.device
) -> Tensor:
    return relative_buckets(
        distances(num_queries, num_keys, device),
        options.relative_attention_num_buckets,
        options.relative_attention_max_distance,
        bidirectional=bidirectional,
    )
