"""Every weight of a model by name and shape, without building it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from megatron.architectures.shapes import LayerShape, ModelShape
from megatron.layout.stages import Stage
from megatron.modeling.options import ModelOptions
from megatron.modeling.stacked_projections import stacked_widths

TABLES = ("embedding.word_embeddings.weight", "embedding.position_embeddings.weight", "output_layer.weight")


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One tensor with its global name and whole shape.

    is_cut: over the tensor-parallel ranks. stacked: rows of each projection where several are stacked in it. padding:
    its last rows, which stand for no word. is_copy: of a weight that another stage holds. has_copies: several stages
    hold it, so that its gradient has a bucket of its own.
    """

    name: str
    shape: tuple[int, ...]
    is_cut: bool = False
    stacked: tuple[int, ...] = ()
    padding: int = 0
    is_copy: bool = False
    has_copies: bool = False

    @property
    def blocks(self) -> tuple[int, ...]:
        """Rows of each matrix that an optimizer sees in it: of stacked projections, else all without padding."""
        return self.stacked or (self.shape[0] - self.padding,)

    @property
    def is_cut_along_rows(self) -> bool:
        """Whether each tensor-parallel rank holds some of its rows, not a part of every row."""
        return self.is_cut and not self.name.endswith(("linear_proj.weight", "linear_fc2.weight"))

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    def local_size(self, tensor_parallel_size: int) -> int:
        """Numbers that one rank holds."""
        return self.size // tensor_parallel_size if self.is_cut else self.size


@dataclass(frozen=True)
class ParameterCount:
    """Weights of a model. `total` includes the padding of the vocabulary; `non_embedding` leaves out token and position
    tables and an untied output layer (the count of Kaplan et al. 2020, section 2.1)."""

    total: int
    non_embedding: int


def count_parameters(shape: ModelShape) -> ParameterCount:
    """Weights of the model, whatever its layout."""
    weights = [*stage_weights(shape, shape.whole())]
    total = sum(weight.size for weight in weights)
    return ParameterCount(total, total - sum(weight.size for weight in weights if weight.name in TABLES))


def stage_weights(shape: ModelShape, stage: Stage) -> Iterator[Weight]:
    """The weights of one model chunk, in the order in which the model registers them."""
    model = shape.model
    table = (shape.padded_vocabulary_size, model.hidden_size)
    padding = shape.padded_vocabulary_size - shape.vocabulary_size
    is_tied = not model.untie_embeddings_and_output_weights
    has_copies = is_tied and stage.holds_embedding != stage.holds_head
    if stage.holds_embedding:
        yield Weight(name=TABLES[0], shape=table, is_cut=True, padding=padding, has_copies=has_copies)
        if model.position_embedding_type == "learned_absolute":
            yield Weight(name=TABLES[1], shape=(shape.max_positions, model.hidden_size))
    layers = shape.layers_of(stage)
    if model.position_embedding_type == "relative":
        yield from _shared_bias_tables(model, layers)
    for layer in layers:
        yield from _layer_weights(model, layer)
    if stage.holds_head:
        yield from _norm(model, f"{shape.layers[-1].stack}.final_layernorm", model.hidden_size)
        if not is_tied or not stage.holds_embedding:
            yield Weight(
                name=TABLES[2], shape=table, is_cut=True, padding=padding, is_copy=is_tied, has_copies=has_copies
            )


def _shared_bias_tables(model: ModelOptions, layers: tuple[LayerShape, ...]) -> Iterator[Weight]:
    """The table of each stack with layers here; the stage with the first of these holds the original."""
    first_here: dict[str, int] = {}
    for layer in layers:
        if layer.shares_bias_table:
            first_here.setdefault(layer.stack, layer.number)
    for stack, number in first_here.items():
        shape = (model.num_attention_heads, model.relative_attention_num_buckets)
        name = f"{stack}.relative_bias.weight"
        yield Weight(name=name, shape=shape, is_cut=True, is_copy=number > 0, has_copies=True)


def _layer_weights(model: ModelOptions, layer: LayerShape) -> Iterator[Weight]:
    place = f"{layer.stack}.layers.{layer.number}"
    hidden, query = model.hidden_size, model.num_attention_heads * model.head_size
    key_value = 2 * model.query_groups * model.head_size
    is_biased = not model.disable_bias_linear
    has_query_bias = is_biased or model.add_qkv_bias
    attention = f"{place}.self_attention"
    yield from _norm(model, f"{place}.input_layernorm", hidden)
    if model.position_embedding_type == "relative" and not layer.shares_bias_table:
        shape = (model.num_attention_heads, model.relative_attention_num_buckets)
        yield Weight(name=f"{attention}.core_attention.relative_bias.weight", shape=shape, is_cut=True)
    yield from _linear(model, f"{attention}.linear_proj", hidden, query, is_biased, cuts_rows=False)
    yield from _linear(model, f"{attention}.linear_qkv", query + key_value, hidden, has_query_bias)
    if model.qk_layernorm:
        yield from _norm(model, f"{attention}.q_layernorm", model.head_size)
        yield from _norm(model, f"{attention}.k_layernorm", model.head_size)
    if layer.context:
        cross = f"{place}.cross_attention"
        yield from _norm(model, f"{place}.pre_cross_attn_layernorm", hidden)
        yield from _linear(model, f"{cross}.linear_proj", hidden, query, is_biased, cuts_rows=False)
        yield from _linear(model, f"{cross}.linear_q", query, hidden, has_query_bias)
        yield from _linear(model, f"{cross}.linear_kv", key_value, hidden, has_query_bias)
        if model.qk_layernorm:
            yield from _norm(model, f"{cross}.q_layernorm", model.head_size)
            yield from _norm(model, f"{cross}.k_layernorm", model.head_size)
    yield from _norm(model, f"{place}.pre_mlp_layernorm", hidden)
    halves = 2 if model.is_gated else 1
    yield from _linear(model, f"{place}.mlp.linear_fc1", model.ffn_size * halves, hidden, is_biased)
    yield from _linear(model, f"{place}.mlp.linear_fc2", hidden, model.ffn_size, is_biased, cuts_rows=False)
    if layer.has_final_norm:
        yield from _norm(model, f"{layer.stack}.final_layernorm", hidden)


def _norm(model: ModelOptions, name: str, width: int) -> Iterator[Weight]:
    yield Weight(name=f"{name}.weight", shape=(width,))
    if model.normalization == "LayerNorm":
        yield Weight(name=f"{name}.bias", shape=(width,))


def _linear(
    model: ModelOptions, name: str, rows: int, columns: int, is_biased: bool, *, cuts_rows: bool = True
) -> Iterator[Weight]:
    """A projection [rows, columns]; its bias is whole where the columns are cut."""
    turn = stacked_widths(model, f"{name}.weight") or ()
    stacked = tuple(width * rows // sum(turn) for width in turn)
    yield Weight(name=f"{name}.weight", shape=(rows, columns), is_cut=True, stacked=stacked)
    if is_biased:
        yield Weight(name=f"{name}.bias", shape=(rows,), is_cut=cuts_rows, stacked=stacked)
