"""megatron-core's core attention on our backends and our one mask type."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor, nn

from megatron.attention.branches import attend_with_branches
from megatron.attention.key_value_cache import KeyValueCache, bias_for
from megatron.attention.registry import AttentionBackend
from megatron.records.batch import Visibility

BucketFunction = Callable[[int, int, torch.device], Tensor]


@dataclass
class AttentionInputs(PackedSeqParams):
    """What every layer of a stack needs to attend.

    It rides on megatron-core's `packed_seq_params`, the one argument that reaches core attention through pipelines and
    recomputation; each stage builds its own. distance_bias: float32 [local heads, s_q + s_k - 1] shared by all layers
    (ALiBi), or None. cache: where keys and values of earlier passes lie, which the visibility counts as keys.
    """

    visibility: Visibility | None = None
    distance_bias: Tensor | None = None
    cache: KeyValueCache | None = None

    def __post_init__(self) -> None:
        self.qkv_format = "sbhd"
        self._rotation: tuple[Tensor, Tensor] | None = None

    def rotation(self, angles: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(cosine, sine) [s, b, 1, 1, w] of angles [s, b, 1, w], which are those of all layers: computed once."""
        if self._rotation is None:
            wide = angles.unsqueeze(2)
            self._rotation = wide.cos().to(dtype), wide.sin().to(dtype)
        return self._rotation


class DistanceBias(nn.Module):
    """A trained bias for each head and distance bucket, cut over heads by tensor parallelism.

    weight: [local heads, num_buckets]. Source: Raffel et al. 2020, section 2.1.
    """

    def __init__(self, config: TransformerConfig, num_heads: int, num_buckets: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_heads, num_buckets, dtype=config.params_dtype))
        for name, value in (("tensor_model_parallel", True), ("partition_dim", 0), ("partition_stride", 1)):
            setattr(self.weight, name, value)

    def forward(self, buckets: Tensor) -> Tensor:
        """Bias of each distance, float32 [local heads, n], from the buckets int64 [n] of the distances."""
        return self.weight.float()[:, buckets]

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple[Any, ...] = (), metadata: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """megatron-core's description of the shard of this rank."""
        state = self.state_dict(prefix="", keep_vars=True)
        return make_sharded_tensors_for_checkpoint(state, prefix, {"weight": 0}, sharded_offsets)


class CoreAttention(MegatronModule):
    """Softmax attention over key intervals: query, key, value [s, b, heads, d] -> [s, b, heads x d].

    `attend` is an attention backend. With `relative_buckets` the layer owns a T5 bias table, and
    `bucket_function(s_q, s_k, device)` gives the bucket of each distance; the queries are the last of the keys.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: Any = None,
        attention_type: str | None = None,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: Any = None,
        *,
        attend: AttentionBackend,
        relative_buckets: int = 0,
        bucket_function: BucketFunction | None = None,
    ) -> None:
        super().__init__(config=config)
        self.layer_number = layer_number
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.scale = softmax_scale or config.softmax_scale or 1.0 / math.sqrt(config.kv_channels)
        self.attend = attend
        self.bucket_function = bucket_function
        local_heads = config.num_attention_heads // config.tensor_model_parallel_size
        self.relative_bias = DistanceBias(config, local_heads, relative_buckets) if relative_buckets else None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        attn_mask_type: Any = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: AttentionInputs | None = None,
    ) -> Tensor:
        """Attend under the visibility that `packed_seq_params` carries.

        attention_mask: not a mask but the distance bias of layers that share a trained one, float32 [local heads,
        s_q + s_k - 1]: what has a gradient must be an argument of functions that are computed again.
        """
        assert packed_seq_params is not None, "the visibility travels on packed_seq_params"
        visibility, cache = packed_seq_params.visibility, packed_seq_params.cache
        bias = packed_seq_params.distance_bias if attention_mask is None else attention_mask
        assert visibility is not None, "the visibility travels on packed_seq_params"
        if self.relative_bias is not None:
            bias = bias_for(cache, self.relative_bias, self._own_bias, query.shape[0], visibility.num_keys)
        dropout = self.dropout if self.training else 0.0

        def attend() -> Tensor:
            q, k, v = (tensor.permute(1, 2, 0, 3) for tensor in (query, key, value))
            if cache is not None:
                k, v = cache.extend(self, k, v)
            if visibility.branches:
                assert cache is None and not dropout, "branches are of rows that are only read, and at once"
                return attend_with_branches(self.attend, q, k, v, visibility, scale=self.scale, distance_bias=bias)
            return self.attend(q, k, v, visibility, scale=self.scale, distance_bias=bias, dropout_p=dropout)

        if dropout and not self.config.sequence_parallel:  # under SP the block has already forked the generator
            with get_cuda_rng_tracker().fork():
                context = attend()
        else:
            context = attend()
        context = context.permute(2, 0, 1, 3)
        return context.reshape(*context.shape[:2], -1)

    def _own_bias(self, num_queries: int, num_keys: int) -> Tensor:
        """The layer's bias by distance, float32 [local heads, s_q + s_k - 1]."""
        assert self.relative_bias is not None and self.bucket_function is not None, "made with a table and buckets"
        bias: Tensor = self.relative_bias(self.bucket_function(num_queries, num_keys, self.relative_bias.weight.device))
        return bias
