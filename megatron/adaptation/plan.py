"""What each tensor of a target model is made of: rules by global name, first match wins.

Names are those of checkpoints (see docs/checkpoints.md); gated projections are stored as two tensors of their own and
need no rule. Sources: Wang et al. 2022, section 5 (CD <-> ND); Zhang et al. 2025, T5Gemma (decoder to
encoder-decoder: both stacks from the decoder, cross attention from its self attention or drawn).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from megatron.adaptation import gathers
from megatron.adaptation.options import DECODERS, ENCODER_DECODERS, AdaptationOptions
from megatron.modeling.options import ModelOptions

Gather = Callable[[ModelOptions], Tensor]

WORD_TABLE, HEAD_TABLE = "embedding.word_embeddings.weight", "output_layer.weight"
LAYER_BIAS = r"decoder\.(layers\.\d+)\.self_attention\.core_attention\.relative_bias\.weight"


@dataclass(frozen=True)
class Source:
    """A tensor of the source. index: its entries along `dim`, int64, in the order of the target; None for all."""

    name: str
    dim: int = 0
    index: Tensor | None = None


@dataclass(frozen=True)
class Rule:
    """Tensors whose whole name matches `pattern` come from `source`, a template with the groups of the pattern.

    source None: they keep their initial weights. gather: the entries along `dim` that they take of it.
    """

    pattern: str
    source: str | None
    gather: Gather | None = None
    dim: int = 0


@dataclass(frozen=True)
class Plan:
    """Rules from one architecture to another, for a model shape."""

    rules: tuple[Rule, ...]
    model: ModelOptions

    def source_of(self, name: str) -> Source | None:
        """Where a tensor of the target comes from; None where it is drawn."""
        for rule in self.rules:
            match = re.fullmatch(rule.pattern, name)
            if match:
                index = rule.gather(self.model) if rule.gather else None
                return Source(match.expand(rule.source), rule.dim, index) if rule.source is not None else None
        raise AssertionError(f"no rule says what {name} is made of")


def make_plan(source: str, options: AdaptationOptions, before: ModelOptions, after: ModelOptions) -> Plan:
    """The plan from the architecture `source` with the model `before` to `options.to` with the model `after`."""
    rules: tuple[Rule, ...] = ()
    if after.untie_embeddings_and_output_weights and not before.untie_embeddings_and_output_weights:
        rules = (Rule(re.escape(HEAD_TABLE), WORD_TABLE),)
    if source in ENCODER_DECODERS and options.to in DECODERS:
        rules += decoder_from_stack(options.stack, shares_table=before.shares_bias_tables)
    elif source in DECODERS and options.to in ENCODER_DECODERS:
        rules += (*stacks_from_decoder(), *cross_attention_rules(draws=options.draws_cross_attention), *LAYERS_OF_BOTH)
    return Plan((*rules, Rule(r".*", r"\g<0>")), after)


def decoder_from_stack(stack: str, *, shares_table: bool) -> tuple[Rule, ...]:
    """A decoder from one stack of an encoder-decoder. A table of distances that its layers share goes to each."""
    gather = gathers.buckets_of_decoder if stack == "encoder" else None
    table = "relative_bias" if shares_table else r"\1.self_attention.core_attention.relative_bias"
    return (
        Rule(LAYER_BIAS, rf"{stack}.{table}.weight", gather, dim=1),
        Rule(r"decoder\.(.*)", rf"{stack}.\1"),
    )


def stacks_from_decoder() -> tuple[Rule, ...]:
    """The table of distances of each stack from a decoder's first layer."""
    first_table = "decoder.layers.0.self_attention.core_attention.relative_bias.weight"
    return (
        Rule(r"encoder\.relative_bias\.weight", first_table, gathers.buckets_of_encoder, dim=1),
        Rule(r"decoder\.relative_bias\.weight", first_table),
    )


def cross_attention_rules(*, draws: bool) -> tuple[Rule, ...]:
    """Cross attention and its norm from the layer's self attention, or drawn."""
    if draws:
        return (Rule(r"decoder\.layers\.\d+\.(cross_attention|pre_cross_attn_layernorm)\..*", None),)
    layer = r"decoder\.(layers\.\d+)\."
    stacked = r"decoder.\1.self_attention.linear_qkv.\2"
    return (
        Rule(layer + r"pre_cross_attn_layernorm\.(.*)", r"decoder.\1.input_layernorm.\2"),
        Rule(layer + r"cross_attention\.linear_q\.(.*)", stacked, gathers.query_rows),
        Rule(layer + r"cross_attention\.linear_kv\.(.*)", stacked, gathers.key_value_rows),
        Rule(layer + r"cross_attention\.(.*)", r"decoder.\1.self_attention.\2"),
    )


LAYERS_OF_BOTH = (Rule(r"(?:encoder|decoder)\.(.*)", r"decoder.\1"),)
