"""The special tokens that an objective needs and a vocabulary may lack. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megatron.basics.errors import UserError
from megatron.tokenization.tokenizer import Tokenizer

# Fields of SpecialTokens, by objective.
NEEDED_TOKENS: dict[str, tuple[str, ...]] = {
    "span_corruption": ("sentinels",),
    "ul2": ("sentinels", "mode_tokens"),
    "fill_in_the_middle": ("fim_tokens",),
}


def tokens_to_add(objective: str, tokenizer: Tokenizer) -> list[str]:
    """What --add-special-tokens must add so that the objective can be trained: kinds of which there are none."""
    return [kind for kind in NEEDED_TOKENS.get(objective, ()) if not getattr(tokenizer.special, kind)]


def require_same_words(trained: Mapping[str, Any], tokenizer: Tokenizer, where: str) -> None:
    """Refuse a tokenizer whose ids do not begin with those that `where` was trained with.

    trained: what its checkpoint says of its tokenizer.
    """
    if trained["fingerprint"] != tokenizer.fingerprint:
        raise UserError(
            f"--tokenizer-model {tokenizer.source} is not the one that {where} was trained with; adaptation keeps the "
            "words: leave it out, or pass that one."
        )
    added = trained.get("added", [])
    if list(tokenizer.added[: len(added)]) != added:
        raise UserError(
            f"--add-special-tokens must begin with what {where} was given, whose ids stay; leave it out, or add behind "
            "that."
        )
