"""Prefix language modelling: the rest of a window is predicted from a random prefix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from megatron.objectives.options import ObjectiveOptions
from megatron.records.example import SequencePair
from megatron.records.room import Room, Size
from megatron.records.special_tokens import SpecialTokens
from megatron.records.window import Window

SHORTEST_FOLDED = 4  # tokens: two texts with an input and a target each


@dataclass(frozen=True, kw_only=True)
class PrefixLM:
    """PLM: a window is cut at a place drawn uniformly from all that leave a token on each side.

    Where inputs and targets have rows of their own (encoder-decoders), a window is two texts of equal length n, and the
    second is cut such that the inputs of both fill one row and the targets of both the other. Rows of 6 and 6, window
    10 11 12 13 14 15 20 21 22 23 24 25, cut of the first text at 2:

        inputs 10 11, targets 12 13 14 15        inputs 20 21 22 23, targets 24 25

    A shorter window, a document that shares the rows with others, is folded alike, its inputs and targets in proportion
    to the rows; so its size is known before its cuts are drawn. In one row of running text a cut may lie in any of the
    documents: all before it are the prefix, and the example says where they begin, from where positions may restart.

    Source: Raffel et al. 2020, section 3.2.1; Wang et al. 2022, section 2.2 and their packed tasks.
    """

    produces: ClassVar[type] = SequencePair
    settings: ClassVar[tuple[str, ...]] = ()
    keeps_text: ClassVar[bool] = True
    is_complete: ClassVar[bool] = False
    ends_inputs: ClassVar[bool] = False
    marks_documents: ClassVar[bool] = False
    reads_pairs: ClassVar[bool] = False

    room: Room

    @classmethod
    def build(cls, options: ObjectiveOptions, special: SpecialTokens, room: Room) -> Self:
        """The objective for rows with this room. Raises UserError when a row cannot hold a prefix and a target."""
        if room.is_split and min(room.inputs, room.targets) < 2:
            raise UserError(
                "--objective prefix_lm folds two texts into the rows of an encoder-decoder; give --seq-length and "
                "--decoder-seq-length 2 or more each."
            )
        if room.total < 2:
            raise UserError(
                "--objective prefix_lm needs a window of two tokens or more, to cut it in two; raise --seq-length."
            )
        return cls(room=room)

    def __call__(self, window: Window, draws: Draws) -> tuple[SequencePair, ...]:
        """One example, or the two that fill each other's gaps. A window of one token is an input without a target."""
        tokens = window.tokens
        if not self.room.is_split:
            cut = draws.between(1, len(tokens) - 1) if len(tokens) > 1 else len(tokens)
            return (SequencePair(inputs=tokens[:cut], targets=tokens[cut:], document_starts=window.document_starts),)
        inputs = self.size(len(tokens)).inputs
        if len(tokens) < SHORTEST_FOLDED:
            return (SequencePair(inputs=tokens[:inputs], targets=tokens[inputs:]),)
        length = len(tokens) // 2
        # Both cuts leave a token on each side: 1 <= cut < length and 1 <= inputs - cut < length.
        cut = draws.between(max(1, inputs - length + 1), min(length - 1, inputs - 1))
        first, second = tokens[:length], tokens[length:]
        return (
            SequencePair(inputs=first[:cut], targets=first[cut:]),
            SequencePair(inputs=second[: inputs - cut], targets=second[inputs - cut :]),
        )

    @property
    def window_length(self) -> int:
        """As many tokens as a row takes; an even number where two texts share it."""
        return self.room.total // 2 * 2 if self.room.is_split else self.room.total

    @property
    def stride(self) -> int:
        """Windows follow one another."""
        return self.window_length - self.room.overlap

    def size(self, num_tokens: int) -> Size:
        """Any token but the first may be a target, any but the last an input; of folded windows exactly so many."""
        if num_tokens == 1:
            return Size.of(1, 0)
        if not self.room.is_split:
            return Size(num_tokens - 1, num_tokens - 1, num_tokens)
        if num_tokens < SHORTEST_FOLDED:
            return Size.of(num_tokens - 1, 1)
        share = -(-num_tokens * self.room.inputs // self.room.total)
        inputs = min(max(share, 2), num_tokens - 2)
        return Size.of(inputs, num_tokens - inputs)
