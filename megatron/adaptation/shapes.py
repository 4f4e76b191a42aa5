"""The shape that a model has after adaptation: width, depth and form are kept. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from megatron.adaptation.options import DECODERS, ENCODER_DECODERS, AdaptationOptions
from megatron.basics.option import flag_of
from megatron.modeling.options import ModelOptions

# Settings that change no weight: how a step is computed, how weights begin, and padding.
FREE = (
    "attention_backend",
    "attention_dropout",
    "hidden_dropout",
    "init_method",
    "init_method_std",
    "make_vocab_size_divisible_by",
)
DEPTHS = ("num_layers", "encoder_num_layers", "decoder_num_layers")


def pair_faults(source: str, options: AdaptationOptions) -> Iterator[str]:
    """Why the architecture `source` cannot become the target, or which option counts for nothing between the two."""
    if source not in (*DECODERS, *ENCODER_DECODERS):
        yield (
            f"--load holds a model of the architecture {source}, which becomes no other; it may be one of "
            f"{', '.join((*DECODERS, *ENCODER_DECODERS))}."
        )
        return
    if options.from_stack and not (source in ENCODER_DECODERS and options.to in DECODERS):
        yield f"--from-stack has no effect from {source} to {options.to}; leave it out."
    if options.cross_attention and not (source in DECODERS and options.to in ENCODER_DECODERS):
        yield f"--cross-attention has no effect from {source} to {options.to}; leave it out."


def adapted_model(source: str, model: ModelOptions, positions: int, options: AdaptationOptions) -> dict[str, Any]:
    """The model settings of the target, by name.

    positions: those that the source was built for; a table of learned positions keeps as many rows.
    """
    settings = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    if source in ENCODER_DECODERS and options.to in DECODERS:
        layers = model.encoder_layers if options.stack == "encoder" else model.decoder_layers
        settings |= {"num_layers": layers, "encoder_num_layers": None, "decoder_num_layers": None}
        settings["relative_bias_per_layer"] = False  # a decoder's layers have tables of their own in any case
    if model.position_embedding_type == "learned_absolute":
        settings["max_position_embeddings"] = positions
    return settings


def shape_faults(wished: ModelOptions, kept: ModelOptions, to: str, where: str) -> Iterator[str]:
    """A sentence for each model setting `wished` on the command line that is not what adaptation has `kept`."""
    if wished.position_embedding_type != kept.position_embedding_type:
        yield (
            f"--position-embedding-type {wished.position_embedding_type} is not the {kept.position_embedding_type} of "
            f"{where}: weights that learned one kind of positions cannot read another; leave it out."
        )
        return
    if kept.untie_embeddings_and_output_weights and not wished.untie_embeddings_and_output_weights:
        yield (f"--untie-embeddings-and-output-weights is on in {where}: two tables do not become one; leave it on.")
    counted = ("encoder_layers", "decoder_layers") if to in ENCODER_DECODERS else ("num_layers",)
    for name in counted:
        here, there = getattr(wished, name), getattr(kept, name)
        if here != there:
            flag = flag_of(name.replace("_layers", "_num_layers") if name != "num_layers" else name)
            yield f"{flag} {here} is not the {there} of {where}: adaptation keeps the depth; leave it out."
    free = {*FREE, *DEPTHS, "position_embedding_type", "untie_embeddings_and_output_weights"}
    if kept.position_embedding_type != "learned_absolute":
        free.add("max_position_embeddings")
    for field in dataclasses.fields(kept):
        here, there = getattr(wished, field.name), getattr(kept, field.name)
        if field.name not in free and here != there:
            yield (
                f"{flag_of(field.name)} {here} is not the {there} of {where}: there is no adaptation between widths "
                "or forms of a model; leave it out."
            )
