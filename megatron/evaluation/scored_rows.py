"""Requests for log-likelihoods packed into rows: each an example of its own, and what many ask for is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from megatron.data.collate import collate
from megatron.data.row_plan import RowPlan
from megatron.evaluation.prompt_rows import PromptRows
from megatron.records.batch import Batch
from megatron.records.example import SequencePair

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
class Segment:
    """One example in a row, whose last positions predict continuations that differ in their last token alone.

    positions: what it takes of the encoder's row and of the decoder's. asked: request number -> the tokens whose
    log-probabilities the last positions give, one position for each token.
    """

    example: SequencePair
    positions: tuple[int, int]
    asked: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)

    @property
    def num_predictions(self) -> int:
        """How many of its last positions predict."""
        return len(self.asked[0][1])


@dataclass(frozen=True, eq=False)
class Questions:
    """What is asked of the logits of a batch, int64 [m] each: by which request, about which token, and where.

    positions count the columns of the batch's `head_positions`.
    """

    requests: Tensor
    tokens: Tensor
    positions: Tensor


def segments_of(requests: Sequence[ScoreRequest], prompt_rows: PromptRows) -> list[Segment]:
    """The segments that answer all requests, in an order that does not depend on theirs.

    A continuation that is longer than a row takes is cut into pieces, as long as a row takes but for the last one;
    each has what stands before it as its context, at least one token. So a text that is all continuation is scored in
    windows, each token once, as lm-eval's rolling log-likelihood does.
    """
    longest = prompt_rows.room_for_new(1)
    asked: dict[tuple[tuple[int, ...], tuple[int, ...]], list[tuple[int, tuple[int, ...]]]] = {}
    for number, request in enumerate(requests):
        for begin in range(0, len(request.continuation), longest):
            piece = request.continuation[begin : begin + longest]
            seen = prompt_rows.longest_prompt(len(piece))
            context = (request.context + request.continuation[:begin])[-seen:]
            asked.setdefault((context, piece[:-1]), []).append((number, piece))
    segments = []
    for context, shared in sorted(asked):
        questions = asked[context, shared]
        example = prompt_rows.scored(context, questions[0][1])
        segments.append(Segment(example, prompt_rows.positions(example), questions))
    return segments


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


def batch_of(
    rows: Sequence[Sequence[Segment]], prompt_rows: PromptRows, lengths: tuple[int, int]
) -> tuple[Batch, Questions]:
    """Rows as a batch in host memory whose head answers the questions of their segments."""
    heads: list[tuple[int, int]] = []
    questions: list[tuple[int, int, int]] = []
    for number, row in enumerate(rows):
        end = 0
        for segment in row:
            end += segment.positions[1]
            first_column = len(heads)
            heads += [(position, number) for position in range(end - segment.num_predictions, end)]
            for request, tokens in segment.asked:
                questions += [(request, token, first_column + place) for place, token in enumerate(tokens)]
    batch = collate([prompt_rows.packed([segment.example for segment in row], lengths) for row in rows])
    requests, tokens, positions = torch.tensor(questions).t().contiguous()
    return replace(batch, head_positions=torch.tensor(heads).t().contiguous()), Questions(requests, tokens, positions)
