"""Floating-point operations of a training step, from the shape of the model and what its positions see."""

from __future__ import annotations

from dataclasses import dataclass

from megatron.architectures.shapes import LayerShape, ModelShape
from megatron.modeling.options import ModelOptions

FORWARD_AND_BACKWARD = 3  # the backward pass takes two products for each one of the forward pass
MULTIPLY_AND_ADD = 2


@dataclass(frozen=True, kw_only=True)
class VisiblePairs:
    """Pairs of a query and a key of a row that it sees, at their mean over rows: within each stack, and across."""

    decoder: float
    encoder: float = 0.0
    cross: float = 0.0

    def of(self, layer: LayerShape) -> float:
        """Pairs whose scores a layer needs."""
        own = self.encoder if layer.stack == "encoder" else self.decoder
        return own + (self.cross if layer.context else 0.0)


def causal_pairs(length: int) -> VisiblePairs:
    """Those of running text in a decoder: each of `length` positions sees itself and all before it."""
    return VisiblePairs(decoder=length * (length + 1) / 2)


def all_pairs(shape: ModelShape) -> VisiblePairs:
    """What kernels compute that skip nothing."""
    inputs, targets = shape.stacks.get("encoder", 0), shape.stacks.get("decoder", 0)
    return VisiblePairs(decoder=targets**2, encoder=inputs**2, cross=inputs * targets)


def flops_per_token(shape: ModelShape, pairs: VisiblePairs) -> float:
    """Floating-point operations per token of a training step: forward once, backward twice as much.

    Counts matrix products alone (2 for a multiplication and addition): projections, feed-forward, vocabulary head, and
    the two products of attention over visible pairs. The tokens of a row are its inputs and targets. Recomputed
    activations are not counted: they are time, not progress (Chowdhery et al. 2022, appendix B).
    """
    multiplications = sum(layer_multiplications(shape.model, layer, pairs) for layer in shape.layers)
    return (
        FORWARD_AND_BACKWARD
        * MULTIPLY_AND_ADD
        * (multiplications + head_multiplications(shape))
        / (shape.stream_length)
    )


def layer_multiplications(model: ModelOptions, layer: LayerShape, pairs: VisiblePairs) -> float:
    """Multiplications of a layer for one row, forward."""
    hidden, query_width = model.hidden_size, model.num_attention_heads * model.head_size
    key_value_width = 2 * model.query_groups * model.head_size
    feed_forward = hidden * model.ffn_size * (3 if model.is_gated else 2)
    products = layer.length * (hidden * (2 * query_width + key_value_width) + feed_forward)
    if layer.context:
        products += layer.length * hidden * 2 * query_width + layer.context * hidden * key_value_width
    return products + score_multiplications(model, layer, pairs)


def score_multiplications(model: ModelOptions, layer: LayerShape, pairs: VisiblePairs) -> float:
    """The part of them that makes scores and mixes values by them."""
    return 2 * model.num_attention_heads * model.head_size * pairs.of(layer)


def head_multiplications(shape: ModelShape) -> float:
    """Multiplications of the vocabulary head for one row, forward."""
    return float(shape.head_length * shape.model.hidden_size * shape.padded_vocabulary_size)
