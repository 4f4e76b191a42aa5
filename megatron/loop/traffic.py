"""Bytes that a training step sends, by operation and group, from the shape of the model and its layout.

Payloads are those of the tensors handed to a collective: the whole of an all-reduce or a broadcast, the gathered side
of an all-gather, the whole input of a reduce-scatter, the tensor that is sent to a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from megatron.architectures.shapes import LayerShape
from megatron.architectures.weights import Weight
from megatron.layout.stages import Stage
from megatron.loop.memory_estimate import is_factored
from megatron.loop.training_size import FLOAT32, TrainingSize

ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, SEND, BROADCAST = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "send",
    "broadcast",
)
TENSOR, PIPELINE, DATA, EMBEDDING, MODEL, WORLD = "tensor", "pipeline", "data", "embedding", "model", "world"
FLOAT64, INT32 = 8, 4
VOTES = 3  # wishes of a rank that travel with the losses, see `Training`


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Messages of one kind that a device sends in a step. payload: their bytes. group_size: devices that take part."""

    group: str
    operation: str
    payload: int
    group_size: int

    @property
    def sent(self) -> int:
        """Bytes that leave the device when collectives go round a ring (Patarasuk and Yuan 2009)."""
        if self.operation in (SEND, BROADCAST):
            return self.payload
        rounds = 2 if self.operation == ALL_REDUCE else 1
        return rounds * self.payload * (self.group_size - 1) // self.group_size


def transfers_of_rank(size: TrainingSize, pipeline_rank: int) -> list[Transfer]:
    """All messages of a device of this pipeline rank in one step, one entry for each group and operation."""
    payloads: dict[tuple[str, str], int] = {}
    for group, operation, payload in _messages(size, pipeline_rank):
        if payload and _group_size(size, group) > 1:
            payloads[group, operation] = payloads.get((group, operation), 0) + payload
    return [
        Transfer(group=group, operation=operation, payload=payload, group_size=_group_size(size, group))
        for (group, operation), payload in payloads.items()
    ]


def _group_size(size: TrainingSize, group: str) -> int:
    return {
        TENSOR: size.layout.tensor_model_parallel_size,
        PIPELINE: size.layout.pipeline_model_parallel_size,
        DATA: size.data_parallel_size,
        EMBEDDING: min(size.layout.pipeline_model_parallel_size, 2),
        MODEL: size.layout.model_parallel_size,
        WORLD: size.world_size,
    }[group]


def _messages(size: TrainingSize, rank: int) -> Iterator[tuple[str, str, int]]:
    """(group, operation, payload), also of groups of one device."""
    for stage in size.chunks_of(rank):
        for operation, length in _microbatch_messages(size, stage):
            yield TENSOR, operation, size.microbatches * size.hidden_bytes(length)
        if stage.holds_head:  # the largest logits, then the sums of exponentials and the target's logit
            tokens = size.batch.micro_batch_size * size.shape.head_length
            yield TENSOR, ALL_REDUCE, size.microbatches * 3 * FLOAT32 * tokens
        neighbours = (not stage.holds_embedding) + (not stage.holds_head)
        stream = size.hidden_bytes(size.shape.stream_length) // size.sequence_shards
        yield PIPELINE, SEND, neighbours * size.microbatches * stream
        numbers = sum(size.buckets_of(stage))
        if size.optimizer.shards_state:
            yield DATA, REDUCE_SCATTER, FLOAT32 * numbers
            yield DATA, ALL_GATHER, size.element * numbers
        else:
            yield DATA, ALL_REDUCE, FLOAT32 * numbers
            statistics = sum(_adafactor_sums(weight) for weight in size.weights_of(stage))
            yield TENSOR, ALL_REDUCE, FLOAT32 * statistics
    yield TENSOR, ALL_REDUCE, FLOAT32 * sum(_partial_gradients(size, stage) for stage in size.chunks_of(rank))
    yield from _copied_gradients(size, rank)
    yield from _figures(size)


def _microbatch_messages(size: TrainingSize, stage: Stage) -> Iterator[tuple[str, int]]:
    """(operation, positions of hidden states) of a chunk for each micro-batch, forward and backward."""
    is_cut = size.layout.sequence_parallel
    recomputed = size.recomputed_layers(stage)
    for first, end, forward_passes in ((0, recomputed, 2), (recomputed, stage.num_layers, 1)):
        for layer, count in size.shape.kinds_of(stage, first, end).items():
            for operation, length in _layer_messages(layer, is_cut, forward_passes):
                yield operation, count * length
    if stage.holds_embedding:
        # megatron-core sums and cuts at once only where nothing stands between, neither positions nor two streams.
        cuts_at_once = (
            is_cut and size.shape.model.position_embedding_type != "learned_absolute" and len(size.shape.stacks) == 1
        )
        yield (REDUCE_SCATTER if cuts_at_once else ALL_REDUCE), size.shape.stream_length
        if is_cut:
            yield ALL_GATHER, size.shape.stream_length  # of gradients, where the forward pass cut
    if stage.holds_head:
        yield from _into_columns(size.shape.head_length, is_cut, forward_passes=1)


def _layer_messages(layer: LayerShape, is_cut: bool, forward_passes: int) -> Iterator[tuple[str, int]]:
    inputs = [layer.length, layer.length, *([layer.length, layer.context] if layer.context else [])]
    outputs = [layer.length, layer.length, *([layer.length] if layer.context else [])]
    for length in inputs:
        yield from _into_columns(length, is_cut, forward_passes)
    for length in outputs:
        for _ in range(forward_passes):
            yield (REDUCE_SCATTER if is_cut else ALL_REDUCE), length
        if is_cut:
            yield ALL_GATHER, length  # of gradients


def _into_columns(length: int, is_cut: bool, forward_passes: int) -> Iterator[tuple[str, int]]:
    """A projection whose columns are cut: it reads whole positions, and sums the gradients of its input."""
    if is_cut:
        for _ in range(forward_passes + 1):  # the backward pass gathers the input again
            yield ALL_GATHER, length
        yield REDUCE_SCATTER, length
    else:
        yield ALL_REDUCE, length


def _partial_gradients(size: TrainingSize, stage: Stage) -> int:
    """Numbers of a chunk's whole vectors of which each tensor rank has seen a part of the positions or heads."""
    if not size.layout.sequence_parallel and not size.shape.model.qk_layernorm:
        return 0
    return sum(
        weight.size
        for weight in size.weights_of(stage)
        if len(weight.shape) == 1
        and not weight.is_cut
        and (size.layout.sequence_parallel or "q_layernorm" in weight.name or "k_layernorm" in weight.name)
    )


def _adafactor_sums(weight: Weight) -> int:
    """Numbers of a weight that `loop/adafactor.py` adds up over the ranks that cut it: squares of weight and update,
    and of a factored moment those along the cut."""
    if not weight.is_cut:
        return 0
    blocks = len(weight.blocks)
    if not is_factored(weight):
        return 2 * blocks
    rows, columns = weight.shape
    return 2 * blocks + (blocks * (columns + 1) if weight.is_cut_along_rows else rows)


def _copied_gradients(size: TrainingSize, rank: int) -> Iterator[tuple[str, str, int]]:
    """Of a tied embedding on the first and last stage, and of tables that the layers of a stack share."""
    shape, tensor = size.shape, size.layout.tensor_model_parallel_size
    is_end = any(stage.holds_embedding or stage.holds_head for stage in size.chunks_of(rank))
    if is_end and not shape.model.untie_embeddings_and_output_weights:
        table = shape.padded_vocabulary_size * shape.model.hidden_size
        yield EMBEDDING, ALL_REDUCE, FLOAT32 * table // tensor
    if shape.model.position_embedding_type == "relative":
        stacks = {layer.stack for layer in shape.layers if layer.shares_bias_table}
        table = shape.model.num_attention_heads * shape.model.relative_attention_num_buckets
        yield PIPELINE, ALL_REDUCE, len(stacks) * FLOAT32 * table // tensor


def _figures(size: TrainingSize) -> Iterator[tuple[str, str, int]]:
    """Target tokens, the gradient norm, losses and wishes: a few bytes, whose cost is the wait for the slowest."""
    yield PIPELINE, BROADCAST, INT32
    yield DATA, ALL_REDUCE, INT32
    losses = len(size.shape.architecture.loss_names) + (size.optimizer.z_loss_coeff > 0)
    yield WORLD, ALL_REDUCE, FLOAT64 * (2 * losses + VOTES)
    # Where the copies of the model divide the state they divide the gradients, too, and each knows a part of the norm.
    yield (WORLD if size.optimizer.shards_state else MODEL), ALL_REDUCE, FLOAT32
