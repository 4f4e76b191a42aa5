"""What memory, traffic and time of a training run depend on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from megatron.architectures.shapes import ModelShape
from megatron.architectures.weights import Weight, stage_weights
from megatron.layout.options import LayoutOptions
from megatron.layout.stages import Stage
from megatron.loop.gradient_buffers import bucket_sizes
from megatron.loop.options import BatchOptions, OptimizerOptions

FLOAT32 = 4


@dataclass(frozen=True, kw_only=True)
class TrainingSize:
    """A model, how it is spread over `world_size` devices, and what a step takes.

    has_plainly_causal_masks: no documents or prefixes in a row, so that attention may be a library's causal kernel.
    """

    shape: ModelShape
    layout: LayoutOptions
    batch: BatchOptions
    optimizer: OptimizerOptions
    world_size: int
    has_plainly_causal_masks: bool

    @property
    def element(self) -> int:
        """Bytes of a weight or an activation."""
        return 2 if self.optimizer.bf16 or self.optimizer.fp16 else FLOAT32

    @property
    def data_parallel_size(self) -> int:
        """Copies of the model."""
        return self.world_size // self.layout.model_parallel_size

    @property
    def global_batch_size(self) -> int:
        """Rows of a step."""
        return self.batch.global_batch_size or self.batch.micro_batch_size * self.data_parallel_size

    @property
    def microbatches(self) -> int:
        """Micro-batches of a step on each copy."""
        return self.global_batch_size // (self.batch.micro_batch_size * self.data_parallel_size)

    @property
    def sequence_shards(self) -> int:
        """Into how many parts norms and dropout are cut along the sequence."""
        return self.layout.tensor_model_parallel_size if self.layout.sequence_parallel else 1

    @property
    def num_chunks(self) -> int:
        """Model chunks of a pipeline rank."""
        return self.layout.num_virtual_stages_per_pipeline_rank or 1

    @property
    def keeps_scores(self) -> bool:
        """Whether the attention backend keeps its probabilities for the backward pass; whole kernels do not."""
        model = self.shape.model
        if self.layout.recompute_granularity is not None or model.attention_backend == "sdpa":
            return False
        if self.layout.device == "cpu":
            return model.attention_dropout > 0
        is_plain = model.position_embedding_type not in ("alibi", "relative")
        takes_library_kernel = model.attention_backend == "auto" and is_plain and self.has_plainly_causal_masks
        return not takes_library_kernel

    @cached_property
    def stages(self) -> list[Stage]:
        """All model chunks in the order in which a token passes them."""
        return self.shape.stages(self.layout)

    @cached_property
    def different_ranks(self) -> list[int]:
        """The first pipeline rank of each kind: those behind it hold and send the same, of fewer micro-batches."""
        first: dict[tuple[object, ...], int] = {}
        for rank in range(self.layout.pipeline_model_parallel_size):
            held = [
                (stage.holds_embedding, stage.holds_head, *self.shape.kinds_of(stage, 0, stage.num_layers).items())
                for stage in self.chunks_of(rank)
            ]
            first.setdefault(tuple(held), rank)
        return list(first.values())

    def chunks_of(self, pipeline_rank: int) -> list[Stage]:
        """The chunks of one pipeline rank."""
        return [stage for stage in self.stages if stage.pipeline_rank == pipeline_rank]

    def weights_of(self, stage: Stage) -> tuple[Weight, ...]:
        """The weights of a chunk."""
        return _weights_of(self.shape, stage)

    def buckets_of(self, stage: Stage) -> tuple[int, ...]:
        """Numbers in each bucket of gradients of a chunk on one device."""
        return _buckets_of(
            self.shape,
            stage,
            self.layout.tensor_model_parallel_size,
            self.data_parallel_size,
            self.layout.overlap_grad_reduce and stage.virtual_rank == 0,
            self.optimizer.shards_state,
        )

    def hidden_bytes(self, length: int) -> int:
        """Hidden states of a micro-batch over `length` positions of each row, whole."""
        return self.element * self.batch.micro_batch_size * length * self.shape.model.hidden_size

    def parameters_of_rank(self, pipeline_rank: int) -> int:
        """Weights on a device of this pipeline rank, padding left out."""
        tensor = self.layout.tensor_model_parallel_size
        chunks = self.chunks_of(pipeline_rank)
        return sum(weight.local_size(tensor) for stage in chunks for weight in self.weights_of(stage))

    def recomputed_layers(self, stage: Stage) -> int:
        """Layers of a chunk, its first ones, whose forward pass runs twice."""
        if self.layout.recompute_granularity != "full":
            return 0
        is_uniform = self.layout.recompute_method == "uniform"
        return stage.num_layers if is_uniform else min(self.layout.recompute_num_layers, stage.num_layers)


# A search asks for the same chunks again and again.
@lru_cache(maxsize=4096)
def _weights_of(shape: ModelShape, stage: Stage) -> tuple[Weight, ...]:
    return tuple(stage_weights(shape, stage))


@lru_cache(maxsize=4096)
def _buckets_of(
    shape: ModelShape, stage: Stage, tensor_size: int, data_size: int, is_split: bool, is_sharded: bool
) -> tuple[int, ...]:
    weights = _weights_of(shape, stage)
    sizes = bucket_sizes(
        weights, tensor_size=tensor_size, data_size=data_size, is_split=is_split, is_sharded=is_sharded
    )
    return tuple(sizes)
