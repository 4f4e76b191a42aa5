"""UL2: span corruption of several kinds, mixed; the inputs begin with a token that says which kind it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from megatron.objectives.end_token import without_end
from megatron.objectives.noise_spans import NoiseSpans
from megatron.objectives.options import ObjectiveOptions
from megatron.objectives.span_corruption import corrupt, require_sentinels
from megatron.records.example import SequencePair
from megatron.records.room import Room, Size
from megatron.records.special_tokens import SpecialTokens
from megatron.records.window import Window

R, S, X = range(3)  # places of the mode tokens in SpecialTokens.mode_tokens

# (mode, its spans); None is the sequential denoiser: one span, which ends the text and is a quarter of it on average.
DENOISERS: tuple[tuple[int, NoiseSpans | None], ...] = (
    (R, NoiseSpans(0.15, 3)),
    (R, NoiseSpans(0.15, 8)),
    (S, None),
    (X, NoiseSpans(0.5, 3)),
    (X, NoiseSpans(0.5, 8)),
    (X, NoiseSpans(0.15, 64)),
    (X, NoiseSpans(0.5, 64)),
)


@dataclass(frozen=True, kw_only=True)
class UL2:
    """A mixture of denoisers: regular, sequential and extreme, each of the seven as likely as the others.

    Window 10 .. 17 under the sequential denoiser with a span of 2, mode token 7, sentinel 99:

        inputs 7 10 11 12 13 14 15 99        targets 99 16 17

    Both are complete: an end token follows each, and one that ends the window is left out. The sequential span has 1,
    2, ... up to almost half of the tokens, all lengths equally likely: the paper draws it from a uniform distribution,
    whose mean is the quarter of table 1, so that a prefix language model sees prefixes of many lengths. The lengths of
    the other spans are those of T5's span corruption, where the paper draws them from a normal distribution.

    All windows have the length whose largest inputs and targets fit a row, so that each denoiser sees the same number
    of tokens. Source: Tay et al. 2022, section 3.1 and table 1.
    """

    produces: ClassVar[type] = SequencePair
    settings: ClassVar[tuple[str, ...]] = ()
    keeps_text: ClassVar[bool] = False
    is_complete: ClassVar[bool] = True
    ends_inputs: ClassVar[bool] = True
    marks_documents: ClassVar[bool] = False
    reads_pairs: ClassVar[bool] = False

    room: Room
    end_token: int
    sentinels: NDArray[np.int32]
    mode_tokens: tuple[int, ...]

    @classmethod
    def build(cls, options: ObjectiveOptions, special: SpecialTokens, room: Room) -> Self:
        """The objective for rows with this room.

        Raises UserError when the vocabulary lacks mode tokens or has too few sentinels, or when no span fits the room.
        """
        if len(special.mode_tokens) != 3:
            raise UserError(
                "--objective ul2 needs the mode tokens [R], [S] and [X], which the vocabulary of --tokenizer-model "
                "lacks; add them with --add-special-tokens mode_tokens."
            )
        objective = cls(
            room=room,
            end_token=special.end,
            sentinels=np.array(special.sentinels, np.int32),
            mode_tokens=tuple(special.mode_tokens),
        )
        if objective.window_length < 2:
            raise UserError(
                "--objective ul2 needs rows that hold a mode token, a token, a span, two sentinels and two end tokens; "
                "raise --seq-length or --decoder-seq-length."
            )
        require_sentinels("ul2", objective, objective.most_spans, room, special)
        return objective

    def __call__(self, window: Window, draws: Draws) -> tuple[SequencePair, ...]:
        """One example. A window of one token has nothing to hide and is an input without a target."""
        tokens = without_end(window.tokens, self.end_token)
        mode, spans = DENOISERS[draws.below(len(DENOISERS))]
        if len(tokens) < 2:
            inputs, targets = tokens, tokens[:0]
        else:
            counts = spans.counts(len(tokens)) if spans else (draws.between(1, _longest_suffix(len(tokens))), 1)
            inputs, targets = corrupt(tokens, draws, self.sentinels, *counts)
        begun = np.concatenate([np.array([self.mode_tokens[mode]], np.int32), inputs])
        return (SequencePair(inputs=begun, targets=targets, is_complete=True),)

    @property
    def window_length(self) -> int:
        """The most tokens that fit a row whatever the denoiser; 467 for a row of 626."""
        return self.room.longest(self.size)

    @property
    def stride(self) -> int:
        """Windows follow one another."""
        return self.window_length

    def size(self, num_tokens: int) -> Size:
        """The most that any denoiser leaves, hides, and makes of both, with sentinels, mode and end tokens."""
        return Size(*map(max, zip(*_sizes(num_tokens), strict=True)))

    def most_spans(self, num_tokens: int) -> int:
        """Spans that any denoiser makes of a window of two or more tokens."""
        return max(spans for _, spans in _all_counts(num_tokens))


def _longest_suffix(num_tokens: int) -> int:
    """Lengths from 1 to this one are a quarter of the tokens on average."""
    return 2 * max(1, round(num_tokens / 4)) - 1


def _all_counts(num_tokens: int) -> Iterator[tuple[int, int]]:
    """(noise tokens, spans) of each denoiser, of the sequential one at both ends."""
    for _, spans in DENOISERS:
        if spans is not None:
            yield spans.counts(num_tokens)
    yield 1, 1
    yield _longest_suffix(num_tokens), 1


def _sizes(num_tokens: int) -> Iterator[Size]:
    """What each denoiser makes, with mode token, sentinels and end tokens."""
    if num_tokens < 2:
        yield Size.of(num_tokens + 2, 1)
        return
    for noise, spans in _all_counts(num_tokens):
        yield Size.of(num_tokens - noise + spans + 2, noise + spans + 1)
