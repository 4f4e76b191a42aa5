"""Requests for log-likelihoods packed into rows, where a context that several share is read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from megatron.data.row_plan import RowPlan
from megatron.evaluation.prompt_rows import PromptRows

LENGTH_MULTIPLE = 8  # of the rows of a batch: matrix units of GPUs take odd lengths much slower


@dataclass(frozen=True)
class ScoreRequest:
    """How likely is the continuation behind the context? Both are token ids; the continuation has one or more."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.continuation:
            raise ValueError("a continuation must have a token to score")


@dataclass(frozen=True, eq=False)
class Answer:
    """Continuations that differ in their last token alone.

    read: the tokens that the model reads, all but the last. asked: request numbers, and the tokens of each that are to
    be predicted: those of `read` and the last.
    """

    read: tuple[int, ...]
    asked: tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True, eq=False)
class Segment:
    """What is given, and the answers behind it, each of which sees that and itself.

    trunk: positions of what is given in the row of the answers, the last of which predicts their first tokens; 0 where
    an encoder reads it. lengths: positions of each answer in its row. positions: what all of it takes of the encoder's
    row and of the decoder's.
    """

    given: tuple[int, ...]
    answers: tuple[Answer, ...]
    trunk: int
    lengths: tuple[int, ...]
    positions: tuple[int, int]

    @property
    def has_branches(self) -> bool:
        """Several answers take positions behind the same trunk, so that the row is more than one text."""
        return self.trunk > 0 and sum(map(bool, self.lengths)) > 1


def segments_of(
    requests: Sequence[ScoreRequest],
    prompt_rows: PromptRows,
    capacity: tuple[int, int],
    *,
    shares_contexts: bool = True,
) -> list[Segment]:
    """The segments that answer all requests, in an order that does not depend on theirs.

    A continuation that is longer than a row takes is cut into pieces, as long as a row takes but for the last one;
    each has what stands before it as its context, at least one token. So a text that is all continuation is scored in
    windows, each token once, as lm-eval's rolling log-likelihood does. capacity: positions that a segment takes at
    most, unless one answer takes more. shares_contexts: not so, every answer is a segment with a context of its own.
    """
    longest = prompt_rows.room_for_new(1)
    asked: dict[tuple[int, ...], dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]]] = {}
    for number, request in enumerate(requests):
        for begin in range(0, len(request.continuation), longest):
            piece = request.continuation[begin : begin + longest]
            given = prompt_rows.given(request.context + request.continuation[:begin], len(piece))
            asked.setdefault(given, {}).setdefault(piece[:-1], []).append((number, piece))
    segments = []
    for given in sorted(asked):
        answers = [Answer(read, tuple(asked[given][read])) for read in sorted(asked[given])]
        parts = _parts(given, answers, prompt_rows, capacity) if shares_contexts else ([one] for one in answers)
        segments += [_segment(given, part, prompt_rows) for part in parts]
    return segments


def _parts(
    given: tuple[int, ...], answers: Sequence[Answer], prompt_rows: PromptRows, capacity: tuple[int, int]
) -> Iterator[list[Answer]]:
    """Answers in their order, as many at once as a row takes behind what is given, one at least."""
    part: list[Answer] = []
    for answer in answers:
        positions = _segment(given, [*part, answer], prompt_rows).positions
        if part and (positions[0] > capacity[0] or positions[1] > capacity[1]):
            yield part
            part = []
        part.append(answer)
    yield part


def _segment(given: tuple[int, ...], answers: Sequence[Answer], prompt_rows: PromptRows) -> Segment:
    is_split = prompt_rows.is_split
    trunk = 0 if is_split else len(given) + int(prompt_rows.rules.begins_with_start_token)
    lengths = tuple(len(answer.read) + int(is_split) for answer in answers)
    return Segment(given, tuple(answers), trunk, lengths, (len(given) if is_split else 0, trunk + sum(lengths)))


def packed_rows(segments: Sequence[Segment], capacity: tuple[int, int]) -> list[list[Segment]]:
    """Segments in rows that hold `capacity` positions of encoder and decoder, or the longest segment, by best fit."""
    if not segments:
        return []
    # Segments of the same sizes are one kind; the largest kinds, which the plan takes first, have the last numbers.
    kinds: dict[tuple[int, int], list[Segment]] = {}
    for segment in sorted(segments, key=lambda segment: (sum(segment.positions), segment.positions)):
        kinds.setdefault(segment.positions, []).append(segment)
    sizes = np.array([(0, 0), *kinds], np.int64)
    room = np.maximum(sizes.max(axis=0), capacity)
    counts = np.array([0, *map(len, kinds.values())], np.int64)
    costs = np.column_stack([sizes, sizes.sum(axis=1)])
    plan = RowPlan(counts, costs, np.maximum([*room, room.sum()], 1))
    members = [[], *kinds.values()]
    return [[members[kind][number] for kind, number in plan.pieces(row)] for row in range(plan.num_rows)]


def row_lengths(rows: Sequence[Sequence[Segment]]) -> tuple[int, int]:
    """The shortest lengths of encoder and decoder rows that hold these."""
    encoder, decoder = (max(sum(segment.positions[stream] for segment in row) for row in rows) for stream in range(2))
    return _rounded_up(encoder), _rounded_up(decoder)


def _rounded_up(length: int) -> int:
    return -(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
