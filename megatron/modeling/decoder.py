"""The decoder that causal and prefix models share: embedding, a megatron-core TransformerBlock, vocabulary head."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.enums import ModelType
from megatron.core.models.common.language_module.language_module import LanguageModule
from megatron.core.transformer.transformer_block import TransformerBlock
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from megatron.attention.core_attention import AttentionInputs
from megatron.attention.key_value_cache import KeyValueCache
from megatron.attention.registry import AttentionBackend
from megatron.layout.stages import Stage
from megatron.modeling.embedding import build_embedding
from megatron.modeling.head_positions import at_head_positions
from megatron.modeling.head_scale import scaled_for_head
from megatron.modeling.linear import ColumnLinear
from megatron.modeling.options import ModelOptions
from megatron.modeling.positions import alibi_slopes, distances, rotary_angles
from megatron.modeling.specs import decoder_block_spec
from megatron.records.batch import Batch


class Decoder(LanguageModule):
    """One pipeline stage of a decoder.

    forward(batch) takes the same Batch on every stage and gives hidden states [s, b, h] (under sequence parallelism
    [s / TP, b, h]), or on the last stage logits [s, b, padded vocabulary / TP], those of `head_positions` where given.
    With a cache the positions are those behind what it has seen.
    """

    def __init__(
        self,
        config: TransformerConfig,
        options: ModelOptions,
        stage: Stage,
        attend: AttentionBackend,
        *,
        padded_vocabulary_size: int,
        max_positions: int,
        vp_stage: int | None,
    ) -> None:
        super().__init__(config=config)
        self.options = options
        self.model_type = ModelType.encoder_or_decoder  # read by the pipeline schedules
        self.vp_stage = vp_stage
        self.pre_process, self.post_process = stage.holds_embedding, stage.holds_head
        self.share_embeddings_and_output_weights = not options.untie_embeddings_and_output_weights
        if self.pre_process:
            self.embedding = build_embedding(config, options, padded_vocabulary_size, max_positions)
        self.decoder = TransformerBlock(
            config,
            decoder_block_spec(options, attend, stage.num_layers),
            pre_process=self.pre_process,
            post_process=self.post_process,
            vp_stage=vp_stage,
        )
        if self.post_process:
            self.output_layer = ColumnLinear(
                config.hidden_size,
                padded_vocabulary_size,
                config=config,
                init_method=config.init_method,
                bias=False,
                gather_output=False,
                skip_weight_param_allocation=self.pre_process and self.share_embeddings_and_output_weights,
            )
        if self.pre_process or self.post_process:
            self.setup_embeddings_and_output_layer()

    def set_input_tensor(self, input_tensor: Tensor | list[Tensor]) -> None:
        """Take the hidden states of the previous stage; called by megatron-core's schedules."""
        tensors = input_tensor if isinstance(input_tensor, list) else [input_tensor]
        self.decoder.set_input_tensor(tensors[0])

    def forward(self, batch: Batch, cache: KeyValueCache | None = None) -> Tensor:
        """[b, s] tokens -> hidden states or logits, see the class."""
        hidden = self.embedding(batch.tokens, batch.position_ids) if self.pre_process else None
        hidden = self.decoder(
            hidden_states=hidden,
            attention_mask=None,
            rotary_pos_emb=self._rotary_angles(batch),
            packed_seq_params=self._attention_inputs(batch, cache),
        )
        if not self.post_process:
            return hidden
        weight = self.shared_embedding_or_output_weight() if self.share_embeddings_and_output_weights else None
        hidden = scaled_for_head(at_head_positions(hidden, batch), self.options)
        logits, _ = self.output_layer(hidden, weight=weight)
        return logits

    def _rotary_angles(self, batch: Batch) -> Tensor | None:
        if self.options.position_embedding_type != "rope":
            return None
        width = int(self.options.head_size * self.options.rotary_percent)
        return rotary_angles(batch.position_ids, width, self.options.rotary_base)

    def _attention_inputs(self, batch: Batch, cache: KeyValueCache | None) -> AttentionInputs:
        bias = None
        if self.options.position_embedding_type == "alibi":
            apart = distances(batch.tokens.shape[1], batch.visibility.num_keys, batch.tokens.device)
            slopes = alibi_slopes(self.config.num_attention_heads).to(apart.device)
            local = slopes.chunk(self.tp_group.size())[self.tp_group.rank()]
            # Distances ahead of the query are masked for a causal model; a prefix sees them symmetrically.
            bias = -local[:, None] * apart.abs().to(torch.float32)
        return AttentionInputs(visibility=batch.visibility, distance_bias=bias, cache=cache)

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple[Any, ...] = (), metadata: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """megatron-core's description of the shards of this stage; extra states of other libraries are left out."""
        state = super().sharded_state_dict(prefix, sharded_offsets, metadata)
        return {name: value for name, value in state.items() if not name.endswith("_extra_state")}
