"""Which tokens open a word: what whole-word masking and word-aligned spans need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class WordStarts:
    """Finds the tokens that open a word, for any vocabulary.

    A word begins at a piece that carries its space (`▁the`, `Ġthe`, BERT's pieces without `##`), behind a line break or
    tab, which leave no mark in the next piece, and at and behind every special token. A space that is a piece by itself
    belongs to the word that follows.

    opens: bool [v], pieces that begin with white space, and special tokens. ends_word: bool [v], pieces that end in
    white space other than a space, and special tokens.
    """

    opens: NDArray[np.bool_]
    ends_word: NDArray[np.bool_]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> WordStarts:
        """The two tables of a tokenizer."""
        surfaces = tokenizer.surfaces()
        return cls(
            opens=np.array([text is None or text[:1].isspace() for text in surfaces], dtype=np.bool_),
            ends_word=np.array([text is None or text.rstrip(" ")[-1:].isspace() for text in surfaces], dtype=np.bool_),
        )

    def __call__(self, tokens: NDArray[np.int32]) -> NDArray[np.bool_]:
        """bool [n]: True where a word of `tokens` [n] begins. The first token counts as a beginning."""
        starts = self.opens[tokens]
        starts[1:] |= self.ends_word[tokens[:-1]]
        starts[:1] = True
        return starts
