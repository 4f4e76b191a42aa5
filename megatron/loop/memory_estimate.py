"""Expected memory of a device, in bytes, from the shape of the model and its layout; nothing is allocated.

Weights, gradients and optimizer state are counted exactly; activations by the rules of Korthikanti et al. 2022
(section 4, equations 1 to 6), carried over to gated layers, rotary positions, grouped keys, cross attention and float32
as torch's autograd keeps them; on CPU our own feed-forward op keeps less, and torch's dropout more. What the allocator,
the communication library and the kernels' work space take comes on top.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from megatron.architectures.shapes import LayerShape
from megatron.architectures.weights import Weight
from megatron.layout.stages import Stage
from megatron.loop.training_size import FLOAT32, TrainingSize

SMALLEST_FACTORED_SIDE = 128  # that of `loop/adafactor.py`, which imports torch


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on one device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(size: TrainingSize) -> MemoryEstimate:
    """The memory of the fullest device."""
    return max((memory_of_rank(size, rank) for rank in size.different_ranks), key=lambda estimate: estimate.total)


def memory_of_rank(size: TrainingSize, pipeline_rank: int) -> MemoryEstimate:
    """The memory of a device of this pipeline rank; weights and gradients with the padding of their buckets."""
    numbers = sum(sum(size.buckets_of(stage)) for stage in size.chunks_of(pipeline_rank))
    return MemoryEstimate(
        weights=size.element * numbers,
        gradients=FLOAT32 * numbers,
        optimizer=_optimizer_state(size, pipeline_rank, numbers),
        activations=_activations_of_rank(size, pipeline_rank),
    )


def _optimizer_state(size: TrainingSize, rank: int, numbers: int) -> int:
    """Master weights where the weights themselves are not float32, and moments: Adam's two, divided over the copies of
    the model; Adafactor's second one, factored for large matrices, on every copy."""
    masters = FLOAT32 * numbers if size.element < FLOAT32 else 0
    if size.optimizer.shards_state:
        return (masters + 2 * FLOAT32 * numbers) // size.data_parallel_size
    tensor = size.layout.tensor_model_parallel_size
    weights = [weight for chunk in size.chunks_of(rank) for weight in size.weights_of(chunk)]
    return masters + FLOAT32 * sum(factored_moment(weight, tensor) for weight in weights)


def factored_moment(weight: Weight, tensor_size: int) -> int:
    """Numbers that a rank keeps for Adafactor's second moment of a weight; see `loop/adafactor.py`."""
    if not is_factored(weight):
        return weight.local_size(tensor_size)
    rows, columns = weight.shape
    row_shards, column_shards = (tensor_size, 1) if weight.is_cut_along_rows else (1, tensor_size)
    return rows // row_shards + len(weight.blocks) * columns // column_shards


def is_factored(weight: Weight) -> bool:
    """Whether vectors of rows and columns stand for its second moment."""
    if len(weight.shape) < 2 or weight.name.endswith("relative_bias.weight"):
        return False
    return min(*weight.blocks, weight.shape[1]) >= SMALLEST_FACTORED_SIDE


def _activations_of_rank(size: TrainingSize, rank: int) -> int:
    layout, chunks = size.layout, size.chunks_of(rank)
    ranks = layout.pipeline_model_parallel_size
    in_flight = _chunks_in_flight(size, rank)
    # Micro-batches enter in groups as large as the pipeline, and each group passes one chunk after the other.
    passes = Counter(chunks[number // ranks % len(chunks)] for number in range(in_flight))
    total = sum(count * _chunk_activations(size, chunk) for chunk, count in passes.items())
    if rank == 0 and size.shape.model.hidden_dropout:
        masks = -(-in_flight // len(chunks)) * size.batch.micro_batch_size * size.shape.stream_length
        total += _dropout_mask(size) * masks * size.shape.model.hidden_size // size.sequence_shards
    head = _head_activations(size) if rank == ranks - 1 else 0
    if layout.recompute_granularity != "full":
        return total + head
    return total + max(head, *(_recomputed_at_most(size, chunk) for chunk in chunks))


def _recomputed_at_most(size: TrainingSize, chunk: Stage) -> int:
    """What layers of a chunk that are computed again take beyond its kept activations: one unit is there in full at a
    time, and what came behind it, the head's own too, is gone by then."""
    unit = size.layout.recompute_num_layers if size.layout.recompute_method == "uniform" else 1
    recomputed, most, gone = size.recomputed_layers(chunk), 0, 0
    for number, layer in reversed([*enumerate(size.shape.layers_of(chunk))]):
        if number < recomputed:
            most = max(most, unit * layer_activations(size, layer) - gone)
            gone += size.hidden_bytes(layer.length) // size.sequence_shards // unit
        else:
            gone += layer_activations(size, layer)
    return most


def _chunks_in_flight(size: TrainingSize, rank: int) -> int:
    """Chunk passes whose backward pass is still to come, at most (Narayanan et al. 2021, section 2.2)."""
    ranks, chunks = size.layout.pipeline_model_parallel_size, size.num_chunks
    behind = ranks - rank - 1
    wanted = behind + 1 if chunks == 1 else 2 * behind + (chunks - 1) * ranks + 1
    return min(wanted, size.microbatches * chunks)


def _chunk_activations(size: TrainingSize, chunk: Stage) -> int:
    """What the layers of a chunk keep of one micro-batch."""
    layers = size.shape.layers_of(chunk)
    recomputed = size.recomputed_layers(chunk)
    unit = size.layout.recompute_num_layers if size.layout.recompute_method == "uniform" else 1
    inputs = sum(size.hidden_bytes(layer.length) for layer in layers[:recomputed:unit]) // size.sequence_shards
    kinds = size.shape.kinds_of(chunk, recomputed, chunk.num_layers)
    kept = sum(count * layer_activations(size, layer) for layer, count in kinds.items())
    return inputs + kept + _other_streams(size, layers)


def _other_streams(size: TrainingSize, layers: tuple[LayerShape, ...]) -> int:
    """Hidden states in a chunk of an encoder-decoder that no layer above counts for its own.

    The decoder's ride along where only the encoder computes; the encoder's last ones are kept once for all cross
    attention, and once more before their norm.
    """
    total = 0
    stacks = {layer.stack for layer in layers}
    if "encoder" in stacks and "decoder" not in stacks:
        total += size.shape.stacks["decoder"]
    total += max((layer.context for layer in layers), default=0)
    if size.layout.recompute_granularity != "full":
        total += (_float32_copy(size) or 1) * sum(layer.length for layer in layers if layer.has_final_norm)
    return size.hidden_bytes(total) // size.sequence_shards


def layer_activations(size: TrainingSize, layer: LayerShape) -> int:
    """Bytes that one layer keeps of one micro-batch for its backward pass, when it is not recomputed as a whole.

    For GPT's shape in 16 bits with dropout and all scores kept: s b h (10 + 24 / t + 5 a s / (h t)), and
    s b h / t (34 + 5 a s / h) under sequence parallelism (Korthikanti et al. 2022, table 2).
    """
    model, tensor, element = size.shape.model, size.layout.tensor_model_parallel_size, size.element
    blocks = 3 if layer.context else 2
    # Input of the norm and of the projection of each block, and a dropout mask behind it.
    whole = blocks * (((_float32_copy(size) or 1) + 1) * element + _dropout_mask(size)) * model.hidden_size
    heads = model.num_attention_heads * model.head_size
    numbers = layer.length * (_self_attention_width(size) + _feed_forward_width(size))
    keys = layer.length
    if layer.context:  # queries and the input of the projection back; keys and values of the other stack
        numbers += 2 * layer.length * heads + 2 * layer.context * model.query_groups * model.head_size
        if model.qk_layernorm:
            numbers += (_float32_copy(size) or 1) * layer.length * heads
            numbers += (_float32_copy(size) + 1) * layer.context * model.query_groups * model.head_size
        keys += layer.context
    scores = 0
    if size.keeps_scores:
        bytes_of_score = 2 * element + 1 if model.attention_dropout else element
        scores = model.num_attention_heads * layer.length * keys * bytes_of_score
    angles = 4 * element * model.head_size if model.position_embedding_type == "rope" else 0
    cut = (element * numbers + scores) // tensor
    return size.batch.micro_batch_size * (layer.length * (whole // size.sequence_shards + angles) + cut)


def _float32_copy(size: TrainingSize) -> int:
    """16-bit numbers that the float32 copy takes which a norm with --apply-layernorm-1p keeps of each of its inputs.

    0 where there is none. What it is a copy of can go, but keys and queries stay as long as values beside them do.
    """
    return FLOAT32 // size.element if size.shape.model.apply_layernorm_1p and size.element < FLOAT32 else 0


def _self_attention_width(size: TrainingSize) -> int:
    """Numbers a position: queries, keys, values, the input of the projection back, and what is made of queries and
    keys before they meet."""
    model = size.shape.model
    heads, groups, width = model.num_attention_heads, model.query_groups, model.head_size
    attention = (2 * heads + 2 * groups) * width
    is_rotated = model.position_embedding_type == "rope"
    if is_rotated or model.qk_layernorm:
        attention += (heads + groups) * width
    if model.qk_layernorm:
        attention += _float32_copy(size) * (heads + groups) * width
    if groups != heads and (model.qk_layernorm or not is_rotated):  # queries that share keys are laid out anew
        attention += heads * width
    return attention


def _feed_forward_width(size: TrainingSize) -> int:
    """Numbers a position between the two products: on CPU the input of the activation and its output, elsewhere what
    plain torch keeps. There ReLU keeps its output alone, a gated layer both halves, the activated one, its partner
    again, the product."""
    model = size.shape.model
    if size.layout.device == "cpu":
        return model.ffn_size * (3 if model.is_gated else 2)
    return model.ffn_size * (5 if model.is_gated else 1 if model.activation == "relu" else 2)


def _dropout_mask(size: TrainingSize) -> int:
    """Bytes a number that dropout keeps: a boolean, on CPU a factor."""
    if not size.shape.model.hidden_dropout:
        return 0
    return size.element if size.layout.device == "cpu" else 1


def _head_activations(size: TrainingSize) -> int:
    """Inputs of the last norm and the output layer, float32 probabilities, and the gradient of the logits."""
    length = size.shape.head_length
    inputs = ((_float32_copy(size) or 1) + 1) * size.hidden_bytes(length) // size.sequence_shards
    columns = size.shape.padded_vocabulary_size // size.layout.tensor_model_parallel_size
    return inputs + size.batch.micro_batch_size * length * (FLOAT32 + size.element) * columns
