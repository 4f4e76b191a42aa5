"""BERT's masking of single tokens, for whole batches of rows: what objectives for encoders build on."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from megatron.basics.draws import Draws
from megatron.objectives.native import native_corruption


@dataclass(frozen=True, kw_only=True)
class TokenMasking:
    """Chooses tokens of a row and hides most of them.

    Of the tokens that may be chosen, all but those in `left_alone`, a share of `share` is: rounded, halves to even, and
    at least one where there is one; each set of that size is as likely as any other. Of the chosen tokens 80 % become
    `mask_token`, 10 % a token drawn uniformly from `random_tokens` (which may be the same again), 10 % stay, each drawn
    by itself. Source: Devlin et al. 2019, section 3.1 and appendix A.1.

    vocabulary_size: rows hold ids below it. left_alone: ids of padding, separators and the like. random_tokens: a range
    with a step of 1, of at most 2^31 ids.
    """

    vocabulary_size: int
    mask_token: int
    left_alone: Collection[int]
    random_tokens: range
    share: float = 0.15

    def __call__(
        self, tokens: NDArray[np.int32], seeds: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """(inputs int32 [b, n], which positions were chosen bool [b, n]) of tokens int32 [b, n] and seeds uint64 [b].

        A row depends on its own seed alone. Raises ValueError for ids that are not of the vocabulary.
        """
        native = native_corruption()
        if native is None:
            return self.in_numpy(tokens, seeds)
        plain, random = self._plain_tokens, self.random_tokens
        inputs, is_chosen = native.mask_tokens(
            np.ascontiguousarray(tokens),
            seeds,
            self._is_choice,
            (plain.start, len(plain)),
            self.share,
            self.mask_token,
            (random.start, len(random)),
        )
        return inputs, is_chosen

    def in_numpy(
        self, tokens: NDArray[np.int32], seeds: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """The same to the bit without native code."""
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocabulary_size:
            raise ValueError(f"tokens must be ids from 0 to {self.vocabulary_size - 1}")
        inputs, is_chosen = tokens.copy(), np.zeros(tokens.shape, np.bool_)
        for row, seed in enumerate(seeds.tolist()):
            choices = np.flatnonzero(self._is_choice[tokens[row]])
            count = min(max(1, round(self.share * len(choices))), len(choices))
            draws = Draws(seed)
            places = choices[draws.subset(len(choices), count)]
            words = draws.words(count)
            tenths = (words >> np.uint64(32)) * np.uint64(10) >> np.uint64(32)
            drawn = (words & np.uint64(2**32 - 1)) * np.uint64(len(self.random_tokens)) >> np.uint64(32)
            others = np.where(tenths == 8, self.random_tokens.start + drawn.astype(np.int64), tokens[row, places])
            inputs[row, places] = np.where(tenths < 8, self.mask_token, others)
            is_chosen[row, places] = True
        return inputs, is_chosen

    @cached_property
    def _is_choice(self) -> NDArray[np.bool_]:
        """bool [vocabulary_size], False for the ids that are left alone."""
        is_choice = np.ones(self.vocabulary_size, np.bool_)
        is_choice[list(self.left_alone)] = False
        return is_choice

    @cached_property
    def _plain_tokens(self) -> range:
        """The longest range of ids that may all be chosen: nearly all, as special ids lie at a vocabulary's ends."""
        ends = [-1, *np.flatnonzero(~self._is_choice).tolist(), self.vocabulary_size]
        return max((range(before + 1, after) for before, after in itertools.pairwise(ends)), key=len)
