"""Fill in the middle: documents are rearranged so that a decoder learns to write what stands between two texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from megatron.objectives.options import ObjectiveOptions
from megatron.records.example import RunningText
from megatron.records.room import Room, Size
from megatron.records.special_tokens import SpecialTokens
from megatron.records.window import Window

MARKS = 3  # tokens that a rearranged document is longer than before
TOKENS_PER_DOCUMENT = 128


@dataclass(frozen=True, kw_only=True)
class FillInTheMiddle:
    """FIM on tokens: each document of a window is cut at two places, any two equally likely, and its parts swapped.

    Document 10 11 12 13 14 15 and end token 1, cut at 2 and 4, marks P (prefix), M (middle) and S (suffix):

        PSM   P 10 11 S 14 15 M 12 13 1        SPM   P S 14 15 M 10 11 12 13 1

    SPM is the paper's second variant. All tokens carry loss, the marks too. Cuts lie between tokens, not characters: a
    window has no others. The paper's transformation of the context, not of whole documents: what a window holds of a
    document is rearranged by itself, so that no part of it lies in another row. Its rows cut off what the marks push
    out; here nothing is lost, because windows are shorter than rows by the marks of one document for every
    TOKENS_PER_DOCUMENT tokens. In a window with more documents those behind the last free marks stay as they are.

    Unless set, a share of 0.9 is rearranged: up to there the paper sees no harm to writing from left to right. Many
    code models take a half.

    Source: Bavarian et al. 2022, sections 3 and 4 and appendix B.
    """

    produces: ClassVar[type] = RunningText
    settings: ClassVar[tuple[str, ...]] = ("fim_rate", "fim_spm_rate")
    keeps_text: ClassVar[bool] = False
    is_complete: ClassVar[bool] = False
    ends_inputs: ClassVar[bool] = False
    marks_documents: ClassVar[bool] = True
    reads_pairs: ClassVar[bool] = False

    room: Room
    end_token: int
    marks: tuple[int, ...]
    rate: float
    spm_rate: float

    @classmethod
    def build(cls, options: ObjectiveOptions, special: SpecialTokens, room: Room) -> Self:
        """The objective for rows with this room. Raises UserError without marks in the vocabulary or room for them."""
        if len(special.fim_tokens) != MARKS:
            raise UserError(
                "--objective fill_in_the_middle needs marks of prefix, middle and suffix, which the vocabulary of "
                "--tokenizer-model lacks; add them with --add-special-tokens fim_tokens."
            )
        if room.total <= MARKS:
            raise UserError(
                f"--objective fill_in_the_middle needs rows that hold {MARKS} marks and a token; use --seq-length "
                f"{MARKS + 1} or more."
            )
        return cls(
            room=room,
            end_token=special.end,
            marks=tuple(special.fim_tokens),
            rate=options.fim_rate,
            spm_rate=options.fim_spm_rate,
        )

    def __call__(self, window: Window, draws: Draws) -> tuple[RunningText, ...]:
        """One example: the documents one behind the other, rearranged or as they were."""
        free, parts, starts = self._most_rearranged, [], []
        is_start = set(window.document_starts.tolist())
        begin = end = 0
        for document in window.documents():
            tokens = document.tokens
            if begin in is_start:
                starts.append(end)
            begin += len(tokens)
            if free and draws.unit() < self.rate:
                tokens = self._rearranged(tokens, draws)
                free -= 1
            parts.append(tokens)
            end += len(tokens)
        return (
            RunningText(
                inputs=np.zeros(0, np.int32),
                targets=np.concatenate(parts),
                document_starts=np.array(starts, np.int32),
            ),
        )

    def _rearranged(self, tokens: NDArray[np.int32], draws: Draws) -> NDArray[np.int32]:
        """A document in the order PSM or SPM; its end token, where it has one, stays at the end."""
        length = len(tokens) - int(tokens[-1] == self.end_token)
        is_spm = draws.unit() < self.spm_rate
        first, last = sorted((draws.between(0, length), draws.between(0, length)))
        prefix, middle, suffix, end = np.split(tokens, [first, last, length])
        prefix_mark, middle_mark, suffix_mark = (np.array([mark], np.int32) for mark in self.marks)
        if is_spm:
            return np.concatenate([prefix_mark, suffix_mark, suffix, middle_mark, prefix, middle, end])
        return np.concatenate([prefix_mark, prefix, suffix_mark, suffix, middle_mark, middle, end])

    @property
    def window_length(self) -> int:
        """Tokens of a row without the marks: 611 for a row of 626."""
        return self.room.total - MARKS * self._most_rearranged

    @property
    def stride(self) -> int:
        """Windows follow one another: most rows begin with a mark, behind which every token is a label."""
        return self.window_length

    def size(self, num_tokens: int) -> Size:
        """All are targets, and the marks of one document; `window_length` leaves room for those of several."""
        return Size.of(0, num_tokens + MARKS)

    @property
    def _most_rearranged(self) -> int:
        """Documents of a window whose marks fit its row."""
        return -(-self.room.total // TOKENS_PER_DOCUMENT)
