"""T5's way to hide spans of tokens behind sentinels, for whole batches of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron.basics.draws import Draws
from megatron.objectives.native import native_corruption


@dataclass(frozen=True)
class NoiseSpans:
    """How much of a text is noise, and in spans of which mean length in tokens.

    Both numbers are T5's and not random: halves are rounded to even, each text of two tokens or more has a span.
    Source: Raffel et al. 2020, section 3.3.3, and t5/data/preprocessors.py.
    """

    density: float
    mean_length: float

    def counts(self, num_tokens: int) -> tuple[int, int]:
        """(noise tokens, spans) of a text of two or more tokens."""
        noise = min(max(round(num_tokens * self.density), 1), num_tokens - 1)
        return noise, min(max(round(noise / self.mean_length), 1), num_tokens - noise)


def words_of_row(spans: int) -> int:
    """How many words of its seed a row takes: one for each border between spans."""
    return 2 * (spans - 1)


def corrupt_rows(
    tokens: NDArray[np.int32], seeds: NDArray[np.uint64], sentinels: NDArray[np.int32], noise: int, spans: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Hides `noise` tokens of each row in `spans` spans.

    tokens: int32 [b, n]. seeds: uint64 [b]; a row depends on its own alone. sentinels: int32 [spans or more].
    Gives inputs int32 [b, n - noise + spans] and targets int32 [b, noise + spans]. Each row begins with a clean span
    and ends with noise; each way to lay the borders is as likely as any other. 1 <= spans <= min(noise, n - noise).

    Row 10 .. 19, noise 4, spans 2, clean spans of 4 and 2, noise spans of 1 and 3, sentinels 99 and 98:

        inputs 10 11 12 13 99 15 16 98        targets 99 14 98 17 18 19
    """
    native = native_corruption()
    if native is None:
        return corrupt_rows_in_numpy(tokens, seeds, sentinels, noise, spans)
    inputs, targets = native.corrupt_spans(np.ascontiguousarray(tokens), seeds, sentinels, noise, spans)
    return inputs, targets


def corrupt_rows_in_numpy(
    tokens: NDArray[np.int32], seeds: NDArray[np.uint64], sentinels: NDArray[np.int32], noise: int, spans: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """`corrupt_rows` without native code, the same to the bit."""
    rows, length = tokens.shape
    inputs = np.empty((rows, length - noise + spans), np.int32)
    targets = np.empty((rows, noise + spans), np.int32)
    for row, seed in enumerate(seeds.tolist()):
        draws = Draws(seed)
        lengths = np.empty(2 * spans, np.int64)
        lengths[1::2] = _random_lengths(noise, spans, draws)
        lengths[0::2] = _random_lengths(length - noise, spans, draws)
        starts = np.cumsum(lengths) - lengths
        is_noise = np.repeat(np.arange(2 * spans) % 2 == 1, lengths)
        inputs[row] = _with_sentinels(tokens[row], ~is_noise, starts[1::2], sentinels)
        targets[row] = _with_sentinels(tokens[row], is_noise, starts[0::2], sentinels)
    return inputs, targets


def _with_sentinels(
    tokens: NDArray[np.int32], kept: NDArray[np.bool_], gaps: NDArray[np.int64], sentinels: NDArray[np.int32]
) -> NDArray[np.int32]:
    """The tokens that are kept, and for each of the gaps, by where it begins, its sentinel."""
    marked, kept = tokens.copy(), kept.copy()
    marked[gaps] = sentinels[: len(gaps)]
    kept[gaps] = True
    return marked[kept]


def _random_lengths(total: int, parts: int, draws: Draws) -> NDArray[np.int64]:
    """`parts` lengths of 1 or more with the sum `total`, all such compositions equally likely."""
    return np.diff(draws.subset(total - 1, parts - 1) + 1, prepend=0, append=total)
