"""The encoder-decoder as one pipeline tensor: encoder and decoder states travel behind one another.

megatron-core's schedules pass a single tensor from stage to stage and have no encoder-decoders any more. Here the first
stage embeds both streams, [s_enc + s_dec, b, h]; every later one takes them apart, lets its layers pass, and lays them
together again. Under sequence parallelism each stream is cut by itself, [(s_enc + s_dec) / TP, b, h].
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import tensor_parallel
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.enums import ModelType
from megatron.core.models.common.language_module.language_module import LanguageModule
from megatron.core.transformer.transformer_block import TransformerBlock
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from megatron.attention.core_attention import AttentionInputs, DistanceBias
from megatron.attention.key_value_cache import KeyValueCache
from megatron.attention.registry import AttentionBackend
from megatron.layout.pipeline_copies import is_original, mark_copy
from megatron.layout.stages import Stage
from megatron.modeling.embedding import build_embedding
from megatron.modeling.encoder_decoder_layers import StreamInputs
from megatron.modeling.encoder_decoder_names import parameter_name
from megatron.modeling.head_positions import at_head_positions
from megatron.modeling.head_scale import scaled_for_head
from megatron.modeling.linear import ColumnLinear
from megatron.modeling.norms import Norm
from megatron.modeling.options import ModelOptions
from megatron.modeling.positions import alibi_slopes, distances, rotary_angles
from megatron.modeling.specs import buckets_of, encoder_decoder_block_spec
from megatron.records.batch import Batch, EncoderBatch

STACKS = ("encoder", "decoder")


class EncoderDecoder(LanguageModule):
    """One pipeline stage of an encoder-decoder (Vaswani et al. 2017; Raffel et al. 2020).

    forward(batch) takes the same Batch on every stage and gives both streams [s_enc + s_dec, b, h], or on the last
    stage logits of the decoder's positions [s_dec, b, padded vocabulary / TP], those of `head_positions` where given.
    With relative positions each stack has one bias table that its layers share; every stage with layers of the stack
    holds a copy.

    With a cache the decoder's positions are those behind what it has seen; all of the encoder's are there in the first
    pass and none later.
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
        self.options, self.stage = options, stage
        self.model_type = ModelType.encoder_or_decoder  # read by the pipeline schedules
        self.vp_stage = vp_stage
        self.pre_process, self.post_process = stage.holds_embedding, stage.holds_head
        self.share_embeddings_and_output_weights = not options.untie_embeddings_and_output_weights
        self.input_tensor: Tensor | None = None
        if self.pre_process:
            self.embedding = build_embedding(config, options, padded_vocabulary_size, max_positions, scatters=False)
            # Dropout comes behind the scatter, where each rank draws for its own part.
            self.embedding.embedding_dropout = nn.Identity()
        self._add_bias_tables()
        self.stack = TransformerBlock(
            config,
            encoder_decoder_block_spec(options, attend, stage),
            post_layer_norm=False,  # it would norm the encoder's positions as well
            post_process=self.post_process,
            vp_stage=vp_stage,
        )
        if self.post_process:
            self.final_layernorm = Norm(config, config.hidden_size, config.layernorm_epsilon)
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

    def _add_bias_tables(self) -> None:
        """Copies of the bias tables of the stacks that have layers here; `pipeline_copies` names them on all stages."""
        self.encoder_bias: DistanceBias | None = None
        self.decoder_bias: DistanceBias | None = None
        self.pipeline_copies: dict[str, tuple[tuple[int, int], nn.Parameter | None]] = {}
        if not self.options.shares_bias_tables:
            return
        heads = self.options.num_attention_heads // self.config.tensor_model_parallel_size
        shape = (heads, self.options.relative_attention_num_buckets)
        end_of_encoder = self.options.encoder_layers
        first, end = self.stage.first_layer, self.stage.first_layer + self.stage.num_layers
        has_layers = {"encoder": first < end_of_encoder, "decoder": end > end_of_encoder}
        is_first = {"encoder": first == 0, "decoder": first <= end_of_encoder}
        for name in STACKS:
            self.pipeline_copies[name] = (shape, None)
            if has_layers[name]:
                table = DistanceBias(self.config, *shape)
                mark_copy(table.weight, is_original=is_first[name])
                setattr(self, f"{name}_bias", table)
                self.pipeline_copies[name] = (shape, table.weight)

    def set_input_tensor(self, input_tensor: Tensor | list[Tensor]) -> None:
        """Take the streams of the previous stage; called by megatron-core's schedules."""
        self.input_tensor = input_tensor[0] if isinstance(input_tensor, list) else input_tensor

    def forward(self, batch: Batch, cache: KeyValueCache | None = None) -> Tensor:
        """[b, s_enc] and [b, s_dec] tokens -> streams or logits, see the class."""
        assert batch.encoder is not None, "an encoder-decoder takes batches with an encoder's side"
        encoded, hidden = self._embed(batch, batch.encoder) if self.pre_process else self._received(batch.encoder)
        hidden = self.stack(
            hidden_states=hidden,
            attention_mask=self._biases(batch, batch.encoder),
            context=encoded,
            packed_seq_params=self._stream_inputs(batch, batch.encoder, cache),
        )
        if not self.post_process:
            return hidden
        weight = self.shared_embedding_or_output_weight() if self.share_embeddings_and_output_weights else None
        hidden = scaled_for_head(self.final_layernorm(at_head_positions(hidden, batch)), self.options)
        logits, _ = self.output_layer(hidden, weight=weight)
        return logits

    def _embed(self, batch: Batch, encoder: EncoderBatch) -> list[Tensor]:
        """Both streams from one look into the table, [s_enc, b, h] and [s_dec, b, h] or this rank's part of each."""
        tokens = torch.cat([encoder.tokens, batch.tokens], dim=1)
        positions = torch.cat([encoder.position_ids, batch.position_ids], dim=1)
        embedded = self.embedding(tokens, positions)
        streams = embedded.split([encoder.tokens.shape[1], batch.tokens.shape[1]])
        dropout = self.config.hidden_dropout
        if self.config.sequence_parallel:
            streams = [tensor_parallel.scatter_to_sequence_parallel_region(stream) for stream in streams]
            with tensor_parallel.get_cuda_rng_tracker().fork():
                return [nn.functional.dropout(stream, dropout, self.training) for stream in streams]
        return [nn.functional.dropout(stream, dropout, self.training) for stream in streams]

    def _received(self, encoder: EncoderBatch) -> tuple[Tensor, Tensor]:
        assert self.input_tensor is not None, "the schedule sets the input of every stage but the first"
        length = encoder.tokens.shape[1]
        if self.config.sequence_parallel:
            length //= self.config.tensor_model_parallel_size
        return self.input_tensor[:length], self.input_tensor[length:]

    def _stream_inputs(self, batch: Batch, encoder: EncoderBatch, cache: KeyValueCache | None) -> StreamInputs:
        return StreamInputs(
            encoder=AttentionInputs(visibility=encoder.visibility),
            decoder=AttentionInputs(visibility=batch.visibility, cache=cache),
            cross=AttentionInputs(visibility=encoder.cross_visibility, cache=cache),
            encoder_angles=self._rotary_angles(encoder.position_ids),
            decoder_angles=self._rotary_angles(batch.position_ids),
            encoder_distances=max(2 * encoder.tokens.shape[1] - 1, 0),
        )

    def _rotary_angles(self, position_ids: Tensor) -> Tensor | None:
        if self.options.position_embedding_type != "rope":
            return None
        width = int(self.options.head_size * self.options.rotary_percent)
        return rotary_angles(position_ids, width, self.options.rotary_base)

    def _biases(self, batch: Batch, encoder: EncoderBatch) -> Tensor | None:
        """Biases by distance of both stacks side by side, float32 [local heads, n], or None.

        n: the distances in the encoder, 2 s_enc - 1, and those in the decoder, s_dec + s_k - 1 with s_k = s_dec but for
        a cache. The part of a stack without layers here stays empty of meaning; a stack without positions has none.
        """
        kind = self.options.position_embedding_type
        if kind != "alibi" and not self.options.shares_bias_tables:
            return None
        device = batch.tokens.device
        parts = []
        for name, part in (("encoder", encoder), ("decoder", batch)):
            lengths = part.tokens.shape[1], part.visibility.num_keys
            table: DistanceBias | None = getattr(self, f"{name}_bias")
            if not lengths[0]:
                continue
            if kind == "alibi":
                slopes = alibi_slopes(self.config.num_attention_heads).to(device)
                local = slopes.chunk(self.tp_group.size())[self.tp_group.rank()]
                parts.append(-local[:, None] * distances(*lengths, device).abs().to(torch.float32))
            elif table is not None:
                parts.append(table(buckets_of(self.options, name == "encoder", *lengths, device)))
            else:
                heads = self.pipeline_copies[name][0][0]
                parts.append(torch.zeros(heads, sum(lengths) - 1, device=device))
        return torch.cat(parts, dim=1)

    def global_name(self, name: str) -> str:
        """The name of a parameter in the whole model, from its name here with layers counted through both stacks."""
        return parameter_name(name, self.options.encoder_layers)

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple[Any, ...] = (), metadata: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """megatron-core's description of the shards of this stage, each under its name in the whole model."""
        state = super().sharded_state_dict(
            prefix, sharded_offsets, {**(metadata or {}), "non_homogeneous_layers": True}
        )
        state = {name: value for name, value in state.items() if not name.endswith("_extra_state")}
        for value in state.values():
            assert isinstance(value, ShardedTensor | ShardedTensorFactory)
            value.key = prefix + self.global_name(value.key.removeprefix(prefix))
        for name, (_, weight) in self.pipeline_copies.items():
            if weight is not None and not is_original(weight):
                shard = state[f"{prefix}{name}_bias.weight"]
                shard.replica_id = (1, *shard.replica_id[1:])
        return state
