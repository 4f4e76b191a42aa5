"""Expected memory of a device, in bytes, from the shape of the model and its layout; nothing is allocated.

Weights, gradients and optimizer state are counted exactly; activations by the rules of Korthikanti et al. 2022
(section 4, equations 1 to 6), carried over to gated layers, rotary positions, grouped keys, cross attention and float32
as torch's autograd keeps them. What the allocator, the communication library and the kernels' work space take comes on
top, and on CPU what its unfused RMSNorm and dropout keep.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron.architectures.shapes import LayerShape
from megatron.layout.stages import Stage
from megatron.loop.training_size import FLOAT32, TrainingSize
from megatron.modeling.options import ModelOptions

MASK = 1  # dropout keeps one byte an element


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
    ranks = range(size.layout.pipeline_model_parallel_size)
    return max((memory_of_rank(size, rank) for rank in ranks), key=lambda estimate: estimate.total)


def memory_of_rank(size: TrainingSize, pipeline_rank: int) -> MemoryEstimate:
    """The memory of a device of this pipeline rank; weights and gradients with the padding of their buckets."""
    numbers = sum(sum(size.buckets_of(stage)) for stage in size.chunks_of(pipeline_rank))
    # Two moments, and master weights where the weights themselves are not float32; sharded over the copies.
    state = 2 * FLOAT32 + (FLOAT32 if size.element < FLOAT32 else 0)
    return MemoryEstimate(
        weights=size.element * numbers,
        gradients=FLOAT32 * numbers,
        optimizer=state * numbers // size.data_parallel_size,
        activations=_activations_of_rank(size, pipeline_rank),
    )


def _activations_of_rank(size: TrainingSize, rank: int) -> int:
    layout, chunks = size.layout, size.chunks_of(rank)
    ranks = layout.pipeline_model_parallel_size
    in_flight = _chunks_in_flight(size, rank)
    # Micro-batches enter in groups as large as the pipeline, and each group passes one chunk after the other.
    passes = [chunks[number // ranks % len(chunks)] for number in range(in_flight)]
    total = sum(_chunk_activations(size, chunk) for chunk in passes)
    if layout.recompute_granularity == "full":  # one unit at a time is computed again, and then is there in full
        unit = layout.recompute_num_layers if layout.recompute_method == "uniform" else 1
        total += unit * max(layer_activations(size, layer) for chunk in chunks for layer in size.shape.layers_of(chunk))
    if rank == 0 and size.shape.model.hidden_dropout:
        masks = -(-in_flight // len(chunks)) * MASK * size.batch.micro_batch_size * size.shape.stream_length
        total += masks * size.shape.model.hidden_size // size.sequence_shards
    if rank == ranks - 1:
        total += _head_activations(size)
    return total


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
    kept = sum(layer_activations(size, layer) for layer in layers[recomputed:])
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
    total += sum(layer.length for layer in layers if layer.has_final_norm)
    return size.hidden_bytes(total) // size.sequence_shards


def layer_activations(size: TrainingSize, layer: LayerShape) -> int:
    """Bytes that one layer keeps of one micro-batch for its backward pass, when it is not recomputed as a whole.

    For GPT's shape in 16 bits with dropout and all scores kept: s b h (10 + 24 / t + 5 a s / (h t)), and
    s b h / t (34 + 5 a s / h) under sequence parallelism (Korthikanti et al. 2022, table 2).
    """
    model, tensor, element = size.shape.model, size.layout.tensor_model_parallel_size, size.element
    blocks = 3 if layer.context else 2
    # Input of the norm and of the projection of each block, and a dropout mask behind it.
    whole = blocks * (2 * element + (MASK if model.hidden_dropout else 0)) * model.hidden_size
    heads = model.num_attention_heads * model.head_size
    # ReLU keeps its output alone; a gated layer both halves, the activated one, its partner again, the product.
    feed_forward = model.ffn_size * (5 if model.is_gated else 1 if model.activation == "relu" else 2)
    numbers = layer.length * (_self_attention_width(model) + feed_forward)
    keys = layer.length
    if layer.context:  # queries and the input of the projection back; keys and values of the other stack
        numbers += 2 * layer.length * heads + 2 * layer.context * model.query_groups * model.head_size
        keys += layer.context
    scores = 0
    if size.keeps_scores:
        bytes_of_score = 2 * element + MASK if model.attention_dropout else element
        scores = model.num_attention_heads * layer.length * keys * bytes_of_score
    angles = 4 * element * model.head_size if model.position_embedding_type == "rope" else 0
    cut = (element * numbers + scores) // tensor
    return size.batch.micro_batch_size * (layer.length * (whole // size.sequence_shards + angles) + cut)


def _self_attention_width(model: ModelOptions) -> int:
    """Numbers a position: queries, keys, values, the input of the projection back, and what is made of queries and
    keys before they meet."""
    heads, groups, width = model.num_attention_heads, model.query_groups, model.head_size
    attention = (2 * heads + 2 * groups) * width
    if model.position_embedding_type == "rope" or model.qk_layernorm:
        return attention + (heads + groups) * width
    return attention + (heads * width if groups != heads else 0)


def _head_activations(size: TrainingSize) -> int:
    """Inputs of the last norm and the output layer, float32 probabilities, and the gradient of the logits."""
    length = size.shape.head_length
    inputs = 2 * size.hidden_bytes(length) // size.sequence_shards
    columns = size.shape.padded_vocabulary_size // size.layout.tensor_model_parallel_size
    return inputs + size.batch.micro_batch_size * length * (FLOAT32 + size.element) * columns
