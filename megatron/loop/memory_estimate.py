"""Expected memory of a device, in bytes, from the shape of the model and its layout; nothing is allocated.

Weights, gradients and optimizer state are counted exactly; activations by the rules of Korthikanti et al. 2022
(section 4, equations 1 to 6), carried over to gated layers, rotary positions, grouped keys and float32 as torch's
autograd keeps them. What the allocator, the communication library and the kernels' work space take comes on top, and
on CPU what its unfused RMSNorm and dropout keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from megatron.layout.options import LayoutOptions
from megatron.layout.stages import Stage, even_chunks, layers_per_rank, stages_of
from megatron.loop.options import BatchOptions, OptimizerOptions
from megatron.modeling.options import ModelOptions

FLOAT32 = 4
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


@dataclass(frozen=True, kw_only=True)
class TrainingSize:
    """What the memory of a run depends on."""

    model: ModelOptions
    layout: LayoutOptions
    batch: BatchOptions
    optimizer: OptimizerOptions
    seq_length: int
    vocabulary_size: int
    world_size: int

    @property
    def element(self) -> int:
        """Bytes of a weight or an activation."""
        return 2 if self.optimizer.bf16 or self.optimizer.fp16 else FLOAT32

    @property
    def data_parallel_size(self) -> int:
        """Copies of the model."""
        return self.world_size // self.layout.model_parallel_size

    @property
    def microbatches(self) -> int:
        """Micro-batches of a step on each copy."""
        rows = self.batch.global_batch_size or self.batch.micro_batch_size * self.data_parallel_size
        return rows // (self.batch.micro_batch_size * self.data_parallel_size)

    @property
    def tokens(self) -> int:
        """Positions of a micro-batch."""
        return self.batch.micro_batch_size * self.seq_length

    @property
    def padded_vocabulary_size(self) -> int:
        """Rows of the embedding table."""
        return self.model.padded_vocabulary_size(self.vocabulary_size)

    @property
    def keeps_scores(self) -> bool:
        """Whether the attention backend keeps its probabilities for the backward pass; whole kernels do not."""
        if self.layout.recompute_granularity is not None or self.model.attention_backend == "sdpa":
            return False
        if self.layout.device == "cpu":
            return self.model.attention_dropout > 0
        is_plain = self.model.position_embedding_type not in ("alibi", "relative")
        takes_library_kernel = self.model.attention_backend == "auto" and is_plain
        return not takes_library_kernel


def estimate_memory(size: TrainingSize) -> MemoryEstimate:
    """The memory of the fullest device."""
    ranks = range(size.layout.pipeline_model_parallel_size)
    return max((_memory_of_rank(size, rank) for rank in ranks), key=lambda estimate: estimate.total)


def parameters_of_rank(size: TrainingSize, pipeline_rank: int) -> int:
    """Weights on a device of this pipeline rank: matrices are cut by tensor parallelism, norms and some biases not."""
    return sum(_parameters_of(size, stage) for stage in _stages_of_rank(size, pipeline_rank))


def _memory_of_rank(size: TrainingSize, rank: int) -> MemoryEstimate:
    parameters = parameters_of_rank(size, rank)
    # Two moments, and master weights where the weights themselves are not float32; sharded over the copies.
    state = 2 * FLOAT32 + (FLOAT32 if size.element < FLOAT32 else 0)
    return MemoryEstimate(
        weights=size.element * parameters,
        gradients=FLOAT32 * parameters,
        optimizer=state * parameters // size.data_parallel_size,
        activations=_activations_of_rank(size, rank),
    )


def _stages_of_rank(size: TrainingSize, rank: int) -> Iterator[Stage]:
    for stage in stages_of(size.layout, even_chunks(size.layout, size.model.num_layers)):
        if stage.pipeline_rank == rank:
            yield stage


def _parameters_of(size: TrainingSize, stage: Stage) -> int:
    model, tensor = size.model, size.layout.tensor_model_parallel_size
    hidden, heads, width = model.hidden_size, model.num_attention_heads, model.head_size
    norm = hidden * (2 if model.normalization == "LayerNorm" else 1)
    query_key_value = (heads + 2 * model.query_groups) * width
    fc1 = model.ffn_size * (2 if model.is_gated else 1)
    cut = hidden * (query_key_value + heads * width + fc1 + model.ffn_size)
    whole = 2 * norm
    if not model.disable_bias_linear:
        cut += fc1
        whole += 2 * hidden  # of the two projections back to the residual stream
    if model.add_qkv_bias or not model.disable_bias_linear:
        cut += query_key_value
    if model.qk_layernorm:
        whole += 2 * norm // hidden * width
    if model.position_embedding_type == "relative":
        cut += model.relative_attention_num_buckets * heads
    total = stage.num_layers * (cut // tensor + whole)
    tables = size.padded_vocabulary_size * hidden // tensor
    if stage.holds_embedding:
        total += tables
        if model.position_embedding_type == "learned_absolute":
            total += (model.max_position_embeddings or size.seq_length) * hidden
    if stage.holds_head:
        total += norm
        if model.untie_embeddings_and_output_weights or not stage.holds_embedding:  # a tied head far away is a copy
            total += tables
    return total


def _activations_of_rank(size: TrainingSize, rank: int) -> int:
    layout = size.layout
    chunks = layout.num_virtual_stages_per_pipeline_rank or 1
    layers = layers_per_rank(layout, size.model.num_layers)[rank] // chunks
    in_flight = _chunks_in_flight(size, rank)
    total = in_flight * _layers_activations(size, layers)
    if layout.recompute_granularity == "full":  # one unit at a time is computed again, and then is there in full
        unit = layout.recompute_num_layers if layout.recompute_method == "uniform" else 1
        total += unit * layer_activations(size)
    shard = layout.tensor_model_parallel_size if layout.sequence_parallel else 1
    if rank == 0 and size.model.hidden_dropout:
        total += -(-in_flight // chunks) * MASK * size.tokens * size.model.hidden_size // shard
    if rank == layout.pipeline_model_parallel_size - 1:
        total += _head_activations(size, shard)
    return total


def _chunks_in_flight(size: TrainingSize, rank: int) -> int:
    """Chunk passes whose backward pass is still to come, at most (Narayanan et al. 2021, section 2.2)."""
    ranks = size.layout.pipeline_model_parallel_size
    chunks = size.layout.num_virtual_stages_per_pipeline_rank or 1
    behind = ranks - rank - 1
    wanted = behind + 1 if chunks == 1 else 2 * behind + (chunks - 1) * ranks + 1
    return min(wanted, size.microbatches * chunks)


def _layers_activations(size: TrainingSize, layers: int) -> int:
    """What the layers of one chunk keep of one micro-batch."""
    layout = size.layout
    if layout.recompute_granularity != "full":
        return layers * layer_activations(size)
    shard = layout.tensor_model_parallel_size if layout.sequence_parallel else 1
    layer_input = size.element * size.tokens * size.model.hidden_size // shard
    if layout.recompute_method == "uniform":
        return -(-layers // layout.recompute_num_layers) * layer_input
    kept_whole = layers - layout.recompute_num_layers
    return layout.recompute_num_layers * layer_input + kept_whole * layer_activations(size)


def layer_activations(size: TrainingSize) -> int:
    """Bytes that one layer keeps of one micro-batch for its backward pass, when it is not recomputed as a whole.

    For GPT's shape in 16 bits with dropout and all scores kept: s b h (10 + 24 / t + 5 a s / (h t)), and
    s b h / t (34 + 5 a s / h) under sequence parallelism (Korthikanti et al. 2022, table 2).
    """
    model, tensor, element = size.model, size.layout.tensor_model_parallel_size, size.element
    hidden, heads, groups, width = model.hidden_size, model.num_attention_heads, model.query_groups, model.head_size
    # Inputs of both norms, of the attention block and of the feed-forward block, and a dropout mask after each block.
    whole = 4 * element * hidden + (2 * MASK * hidden if model.hidden_dropout else 0)
    # Queries, keys, values and the input of the projection back, and what is made of queries and keys before they meet.
    attention = (2 * heads + 2 * groups) * width
    if model.position_embedding_type == "rope" or model.qk_layernorm:
        attention += (heads + groups) * width
    elif groups != heads:
        attention += heads * width
    # ReLU keeps its output alone; a gated layer both halves, the activated one, its partner again, the product.
    feed_forward = model.ffn_size * (5 if model.is_gated else 1 if model.activation == "relu" else 2)
    scores = 0
    if size.keeps_scores:
        scores = heads * size.seq_length * (2 * element + MASK if model.attention_dropout else element)
    shard = tensor if size.layout.sequence_parallel else 1
    angles = 4 * element * width if model.position_embedding_type == "rope" else 0
    cut = element * (attention + feed_forward) + scores
    return size.tokens * whole // shard + size.tokens * angles + size.tokens * cut // tensor


def _head_activations(size: TrainingSize, shard: int) -> int:
    """Inputs of the last norm and the output layer, float32 probabilities, and the gradient of the logits."""
    inputs = 2 * size.element * size.model.hidden_size // shard
    logits = (FLOAT32 + size.element) * size.padded_vocabulary_size // size.layout.tensor_model_parallel_size
    return size.tokens * (inputs + logits)
