"""Whether the values of a config are numbers, switches and words where a model has them, and of a size that can be.

transformers looks at the types of its own classes' fields, and at no size; nobody looks at those of our class.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from megatron.basics.errors import UserError
from megatron.conversion.described_model import DescribedModel
from megatron.modeling.options import ModelOptions

MOST = 10**12  # of any size: still a whole number to everything that is computed from it
MOST_NUMBERS = 2**48  # of one tensor: torch counts its bytes in 63 bits
MOST_COUNTED = 10_000  # layers, for each of which a plan that fits in memory holds several tensors
WORDS = {int: f"a whole number from 1 to {MOST}", float: "a number", bool: "true or false", str: "text"}
SWITCHES = ("tie_word_embeddings", "begins_with_start_token", "bidirectional_prompts", "scale_decoder_outputs")
SIZES_OF_HEADS = ("num_key_value_heads", "head_dim")
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def refuse_endless(config: Mapping[str, Any]) -> None:
    """Raise UserError for a count by which the classes of transformers make lists, before any of them does."""
    for name, value in config.items():
        word = name.split("_")[-1].removesuffix("s")
        if word in ("layer", "label") and isinstance(value, int) and value > MOST_COUNTED:
            raise UserError(f"config.json: {value} {word}s are more than the {MOST_COUNTED} that can be converted.")


def wrong_values(config: Mapping[str, Any], sizes: Mapping[str, str], positions: str) -> Iterator[str]:
    """A sentence for each field that has no value of its kind.

    sizes: settings of ModelOptions, whose types these fields have, by the field that holds them; positions: one more.
    """
    hints = typing.get_type_hints(ModelOptions)
    kinds = {theirs: typing.get_args(hints[ours]) or (hints[ours],) for ours, theirs in sizes.items()}
    kinds |= dict.fromkeys(("vocab_size", positions), (int,))
    kinds |= dict.fromkeys(SIZES_OF_HEADS, (int, type(None)))
    kinds |= dict.fromkeys(SWITCHES, (bool, type(None)))
    for name, kind in kinds.items():
        if name in config and not _is_one(config[name], kind):
            yield f"config.json: {name} {repr(config[name])[:80]} is not {WORDS[kind[0]]}."
    for name in TOKENS:
        ids = config.get(name)
        if not all(type(token) is int for token in (ids if isinstance(ids, list) else [] if ids is None else [ids])):
            yield f"config.json: {name} {repr(ids)[:80]} is neither the id of a token nor a list of them."


def refuse_endless_tensors(described: DescribedModel) -> None:
    """Raise UserError for a tensor whose bytes nothing can count."""
    for name, shape in described.weights().items():
        if math.prod(shape) > MOST_NUMBERS:
            raise UserError(f"config.json: by its sizes {name} is {list(shape)}, more numbers than any tensor has.")


def _is_one(value: object, kinds: tuple[type, ...]) -> bool:
    """Whether a value is of one of these types; a whole number is a number, and true is neither."""
    if type(value) is int:
        return float in kinds or (int in kinds and 1 <= value <= MOST)
    return type(value) in kinds
