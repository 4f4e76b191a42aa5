"""Span corruption: spans of a window are replaced by sentinels, and predicted behind the same sentinels."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from megatron.objectives.end_token import without_end
from megatron.objectives.noise_spans import NoiseSpans, corrupt_rows, words_of_row
from megatron.objectives.options import ObjectiveOptions
from megatron.objectives.protocol import Objective
from megatron.records.example import SequencePair
from megatron.records.room import Room, Size
from megatron.records.special_tokens import NUM_SENTINELS, SpecialTokens
from megatron.records.window import Window


@dataclass(frozen=True, kw_only=True)
class SpanCorruption:
    """MLM for decoders and encoder-decoders: T5's i.i.d. spans.

    Window 10 .. 19, density 0.4, mean length 2, clean spans of 4 and 2, noise spans of 1 and 3, sentinels 99 and 98:

        inputs 10 11 12 13 99 15 16 98        targets 99 14 98 17 18 19

    Both are complete: an end token follows each, and one that ends the window is left out. A window begins with a clean
    span and ends with noise. Numbers and lengths of spans are those of T5 and not random but for where the borders lie,
    each way to lay them as likely as any other. Source: Raffel et al. 2020, section 3.3.3, and
    t5/data/preprocessors.py.
    """

    produces: ClassVar[type] = SequencePair
    settings: ClassVar[tuple[str, ...]] = ("noise_density", "mean_noise_span_length")
    keeps_text: ClassVar[bool] = False
    is_complete: ClassVar[bool] = True
    ends_inputs: ClassVar[bool] = True
    marks_documents: ClassVar[bool] = False
    reads_pairs: ClassVar[bool] = False

    room: Room
    end_token: int
    sentinels: NDArray[np.int32]
    noise_spans: NoiseSpans

    @classmethod
    def build(cls, options: ObjectiveOptions, special: SpecialTokens, room: Room) -> Self:
        """The objective for rows with this room.

        Raises UserError when no span fits the room, or when a window has more spans than the vocabulary sentinels.
        """
        objective = cls(
            room=room,
            end_token=special.end,
            sentinels=np.array(special.sentinels, np.int32),
            noise_spans=NoiseSpans(options.noise_density, options.mean_noise_span_length),
        )
        if objective.window_length < 2:
            raise UserError(
                "--objective span_corruption needs rows that hold a token, a span, two sentinels and two end tokens; "
                "raise --seq-length or --decoder-seq-length."
            )
        otherwise = ", or a larger --mean-noise-span-length"
        require_sentinels("span_corruption", objective, objective.most_spans, room, special, otherwise)
        return objective

    def __call__(self, window: Window, draws: Draws) -> tuple[SequencePair, ...]:
        """One example. A window of one token has nothing to hide and is an input without a target."""
        tokens = without_end(window.tokens, self.end_token)
        if len(tokens) < 2:
            return (SequencePair(inputs=tokens, targets=tokens[:0], is_complete=True),)
        inputs, targets = corrupt(tokens, draws, self.sentinels, *self.counts(len(tokens)))
        return (SequencePair(inputs=inputs, targets=targets, is_complete=True),)

    @property
    def window_length(self) -> int:
        """The most tokens whose inputs and targets fit a row; 568 for rows of 512 and 114, or one of 626."""
        return self.room.longest(self.size)

    @property
    def stride(self) -> int:
        """Windows follow one another."""
        return self.window_length

    def size(self, num_tokens: int) -> Size:
        """What is left and what is hidden, each with a sentinel a span and an end token."""
        if num_tokens < 2:
            return Size.of(num_tokens + 1, 1)
        noise, spans = self.counts(num_tokens)
        return Size.of(num_tokens - noise + spans + 1, noise + spans + 1)

    def counts(self, num_tokens: int) -> tuple[int, int]:
        """(noise tokens, spans) of a window of two or more tokens."""
        return self.noise_spans.counts(num_tokens)

    def most_spans(self, num_tokens: int) -> int:
        """Spans of a window of two or more tokens."""
        return self.counts(num_tokens)[1]


def corrupt(
    tokens: NDArray[np.int32], draws: Draws, sentinels: NDArray[np.int32], noise: int, spans: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(inputs, targets) of one text, int32 [n]; see `corrupt_rows`."""
    seeds = np.array([draws.hand_over(words_of_row(spans))], np.uint64)
    inputs, targets = corrupt_rows(tokens[np.newaxis], seeds, sentinels, noise, spans)
    return inputs[0], targets[0]


def require_sentinels(
    name: str,
    objective: Objective,
    most_spans: Callable[[int], int],
    room: Room,
    special: SpecialTokens,
    otherwise: str = "",
) -> None:
    """Raises UserError when a window has more spans than the vocabulary has sentinels.

    most_spans: of a window of so many tokens, never fewer of a longer one. otherwise: what would do as well as shorter
    rows, the end of the sentence.
    """
    window, present = objective.window_length, len(special.sentinels)
    spans = most_spans(window)
    if spans <= present:
        return
    possible = max(present, NUM_SENTINELS)
    ways = []
    if present < NUM_SENTINELS:
        ways.append(f"--add-special-tokens sentinels, which makes them {NUM_SENTINELS}")
    if spans > possible or present:
        enough = possible if spans > possible else present
        lengths = range(2, window + 1)
        too_long = lengths[bisect.bisect_left(lengths, True, key=lambda length: most_spans(length) > enough)]
        size = objective.size(too_long)
        longest = size.inputs - 1 if room.is_split else size.total - 1 - room.overlap
        ways.append(f"--seq-length {longest} or less{otherwise}")
    raise UserError(
        f"--objective {name} makes {spans} spans of a window of {window} tokens, and the vocabulary of "
        f"--tokenizer-model has {present} sentinels; use {(', and ' if spans > possible else ', or ').join(ways)}."
    )
