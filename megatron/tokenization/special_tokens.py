"""Tokens that are no text: their names in vocabularies of ours, and their ids checked against the vocabulary."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from megatron.basics.errors import UserError

PAD = "<pad>"
END = "</s>"
UNKNOWN = "<unk>"
MASK = "<mask>"
CLASSIFICATION = "<cls>"
SEPARATOR = "<sep>"
NUM_SENTINELS = 100

MASK_NAMES = (MASK, "[MASK]")
CLASSIFICATION_NAMES = (CLASSIFICATION, "[CLS]")
SEPARATOR_NAMES = (SEPARATOR, "[SEP]")


def sentinel_name(number: int) -> str:
    """Name of the sentinel that marks the gap `number`, counted from 0, as in T5's vocabulary."""
    return f"<extra_id_{number}>"


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids of the tokens that are no text; None where a vocabulary has no such token.

    sentinels[k] marks the k-th gap of span corruption. In T5's order and ours sentinels[0] is the highest id of the
    vocabulary, sentinels[1] the one below it, and so on (Raffel et al. 2020, section 3.1.4; t5/data/preprocessors.py).
    """

    end: int
    pad: int | None = None
    unknown: int | None = None
    mask: int | None = None
    classification: int | None = None
    separator: int | None = None
    sentinels: tuple[int, ...] = ()

    def ids(self) -> Iterator[int]:
        """All ids that are set. A vocabulary may use one id for several purposes, so an id may come twice."""
        for token in (self.end, self.pad, self.unknown, self.mask, self.classification, self.separator):
            if token is not None:
                yield token
        yield from self.sentinels

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


def find_sentinels(id_of: Callable[[str], int | None]) -> tuple[int, ...]:
    """Ids of <extra_id_0>, <extra_id_1>, ... up to the first that is missing."""
    ids = (id_of(sentinel_name(number)) for number in itertools.count())
    return tuple(token for token in itertools.takewhile(lambda token: token is not None, ids) if token is not None)


def find_first(id_of: Callable[[str], int | None], names: tuple[str, ...]) -> int | None:
    """Id of the first name that the vocabulary has."""
    return next((token for name in names if (token := id_of(name)) is not None), None)
