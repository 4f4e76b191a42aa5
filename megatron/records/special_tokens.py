"""Ids of the tokens that are no text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from megatron.basics.errors import UserError

NUM_SENTINELS = 100  # of a vocabulary that is given them, as of T5's


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids of the tokens that are no text; None where a vocabulary has no such token.

    begin: the tokenizer's own for the beginning of a text, which may be the one that ends texts, as GPT-2's.
    sentinels[k] marks the k-th gap of span corruption. In T5's order and ours their ids descend: sentinels[0] is the
    highest, in T5 of the whole vocabulary, and so on (Raffel et al. 2020, section 3.1.4; t5/data/preprocessors.py).
    mode_tokens: those of regular, sequential and extreme denoising, in this order (Tay et al. 2022, section 3.1.3).
    fim_tokens: those before prefix, middle and suffix, in this order (Bavarian et al. 2022, section 3).
    """

    end: int
    begin: int | None = None
    pad: int | None = None
    unknown: int | None = None
    mask: int | None = None
    classification: int | None = None
    separator: int | None = None
    sentinels: tuple[int, ...] = ()
    mode_tokens: tuple[int, ...] = ()
    fim_tokens: tuple[int, ...] = ()

    def ids(self) -> Iterator[int]:
        """All ids that are set. A vocabulary may use one id for several purposes, so an id may come twice."""
        for token in (self.end, self.begin, self.pad, self.unknown, self.mask, self.classification, self.separator):
            if token is not None:
                yield token
        yield from (*self.sentinels, *self.mode_tokens, *self.fim_tokens)

    def check(self, vocabulary_size: int, source: str) -> None:
        """Raises UserError unless every id is one of the vocabulary and no two gaps share a sentinel."""
        outside = sorted(token for token in self.ids() if not 0 <= token < vocabulary_size)
        if outside:
            raise UserError(
                f"--tokenizer-model {source} names special token {outside[0]}, but its vocabulary ends at "
                f"{vocabulary_size - 1}; its files belong to different tokenizers."
            )
        if len(set(self.sentinels)) < len(self.sentinels):
            raise UserError(f"--tokenizer-model {source} gives several sentinels <extra_id_N> the same id.")
