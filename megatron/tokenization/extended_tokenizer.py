"""Special tokens for vocabularies that were made without them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.tokenization.special_tokens import NAMES_TO_ADD, in_order_of_ids
from megatron.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class ExtendedTokenizer(Tokenizer):
    """A tokenizer whose vocabulary goes on behind its model's with the special tokens that the model lacks.

    kinds: keys of NAMES_TO_ADD. Each gets its ids behind those of the kinds before it, so that asking for more never
    moves what is there. A vocabulary of 500 with sentinels and mode_tokens:

        500 <extra_id_99> ... 599 <extra_id_0>, 600 [R], 601 [S], 602 [X]

    Text is encoded as before, so token files of the model stay valid, and so does its fingerprint.
    """

    def __init__(self, base: Tokenizer, kinds: Sequence[str]) -> None:
        self._base = base
        self.tokenizer_type, self.source = base.tokenizer_type, base.source
        self.fingerprint, self.guarded = base.fingerprint, base.guarded
        self.special = base.special
        added: list[str] = []
        for kind in kinds:
            there: tuple[int, ...] = getattr(self.special, kind)
            missing = NAMES_TO_ADD[kind][len(there) :]
            in_order = in_order_of_ids(kind, missing)
            id_of = {name: base.vocabulary_size + len(added) + rank for rank, name in enumerate(in_order)}
            whole: dict[str, Any] = {kind: (*there, *(id_of[name] for name in missing))}
            self.special = replace(self.special, **whole)
            added += in_order
        self.added = tuple(added)
        self.vocabulary_size = base.vocabulary_size + len(added)
        self._tell(kinds)

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """See Tokenizer."""
        return self._base.decode([int(token) for token in ids if token < self._base.vocabulary_size])

    def piece(self, token: int) -> str:
        """See Tokenizer."""
        rank = int(token) - self._base.vocabulary_size
        return self._base.piece(token) if rank < 0 else self.added[rank]

    def surfaces(self) -> list[str | None]:
        """See Tokenizer."""
        return [*self._base.surfaces(), *(None for _ in self.added)]

    def _encode_whole(self, texts: list[str]) -> list[NDArray[np.int32]]:
        return self._base._encode_whole(texts)

    def _tell(self, kinds: Sequence[str]) -> None:
        asked = " ".join(kinds)
        if self.added:
            first, last = self._base.vocabulary_size, self.vocabulary_size - 1
            logger.info("--add-special-tokens %s: %d new ids, %d to %d", asked, len(self.added), first, last)
        else:
            logger.info("--add-special-tokens %s: %s has them, nothing is added", asked, self.source)
