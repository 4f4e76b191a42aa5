"""Log-likelihoods of continuations behind contexts, on any layout.

Requests are packed into rows as documents are in training, so next to nothing is padding, and the vocabulary head
computes the logits that are asked for alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megatron.basics.errors import RunFault
from megatron.device.device import Device
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.scored_batch import Questions, batch_of
from megatron.evaluation.scored_rows import ScoreRequest, Segment, packed_rows, row_lengths, segments_of
from megatron.layout.grid import Grid
from megatron.loop.forward_only import read_outputs
from megatron.losses.log_probabilities import log_probabilities
from megatron.records.batch import Batch

Item = TypeVar("Item")
MicroBatch = list[list[Segment]]  # the segments of each of its rows


@dataclass(frozen=True)
class Score:
    """log_likelihood: sum of the natural logarithms of the probabilities of the continuation's tokens.

    is_greedy: each of them is the likeliest token where it stands.
    """

    log_likelihood: float
    is_greedy: bool


def score(
    chunks: Sequence[nn.Module],
    grid: Grid,
    device: Device,
    requests: Sequence[ScoreRequest],
    prompt_rows: PromptRows,
    *,
    vocabulary_size: int,
    micro_batch_size: int = 8,
    row_length: int | None = None,
    shares_contexts: bool = True,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Score]:
    """The score of each request, the same on every rank; logits are of the model's dtype, their softmax is float32.

    chunks: the model of this rank, without gradient buffers or sequence parallelism. Contexts are read as
    `prompt_rows.rule` says and lose tokens from the left where they are too long; a continuation that is longer than
    rows take is scored in pieces (see `segments_of`), so that a whole text is one request without a context.
    row_length: positions of a row that requests share (an encoder-decoder's encoder), by default as many as in
    training. shares_contexts: what several requests have before their continuations is read once. Neither changes a
    score beyond rounding, nor do batch, layout or order. advance(n): n more requests are
    done on all ranks together. A collective. Raises RunFault for logits that are not finite.
    """
    for chunk in chunks:
        chunk.eval()
    capacity = prompt_rows.row_capacity(row_length)
    segments = segments_of(requests, prompt_rows, capacity, shares_contexts=shares_contexts)
    rows = packed_rows(segments, capacity)
    # Few rows are spread over all stages and replicas, so that none waits for a full micro-batch of another.
    fair_size = -(-len(rows) // (grid.pipeline_size * grid.data_size))
    batches = [list(part) for part in _batched(rows, max(min(micro_batch_size, fair_size), 1))]
    # Per request: the log-likelihood, and how many of its tokens are the likeliest. Only the rank that computes a part
    # adds it, and all others add exact zeros: the sum over all ranks is that part. Of a request in pieces it is the sum
    # of theirs, in float64, whose last bits the order may change.
    totals = torch.zeros(len(requests), 2, dtype=torch.float64)
    in_flight = 1 if grid.pipeline_size == 1 else 4 * grid.pipeline_size
    done = _Finished(segments)
    for common in _batched(batches, in_flight * grid.data_size):
        own = common[grid.data_rank :: grid.data_size]
        for _, alike in itertools.groupby(own, key=len):  # the last micro-batch of all may have fewer rows
            _add_scores(totals, list(alike), chunks, grid, device, prompt_rows, vocabulary_size)
        advance(done.count(segment for batch in common for row in batch for segment in row))
    totals = device.put(totals)
    dist.all_reduce(totals)
    if not torch.isfinite(totals).all():
        raise RunFault("the model's logits are not finite; take an earlier checkpoint with --load-iteration.")
    return [
        Score(log_likelihood, int(num_likeliest) == len(request.continuation))
        for (log_likelihood, num_likeliest), request in zip(totals.tolist(), requests, strict=True)
    ]


def _batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


class _Finished:
    """Counts requests when the last segment of each is done."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._left: dict[int, int] = {}
        for number in (number for segment in segments for answer in segment.answers for number, _ in answer.asked):
            self._left[number] = self._left.get(number, 0) + 1

    def count(self, segments: Iterator[Segment]) -> int:
        """Requests that these segments complete."""
        before = len(self._left)
        for number in (number for segment in segments for answer in segment.answers for number, _ in answer.asked):
            self._left[number] -= 1
            if not self._left[number]:
                del self._left[number]
        return before - len(self._left)


def _add_scores(
    totals: Tensor,
    micro_batches: Sequence[MicroBatch],
    chunks: Sequence[nn.Module],
    grid: Grid,
    device: Device,
    prompt_rows: PromptRows,
    vocabulary_size: int,
) -> None:
    """Run micro-batches of equally many rows and add what they say to totals [requests, 2]."""
    lengths = row_lengths([row for batch in micro_batches for row in batch])
    asked: dict[Batch, Questions] = {}
    for micro_batch in micro_batches:
        batch, questions = batch_of(micro_batch, prompt_rows, lengths)
        asked[batch.map(device.put)] = questions
        assert int(questions.tokens.max()) < vocabulary_size, "continuations consist of the vocabulary's tokens"

    def read(batch: Batch, logits: Tensor) -> tuple[Tensor, Tensor]:
        positions, tokens = device.put(asked[batch].positions), device.put(asked[batch].tokens)
        return log_probabilities(logits.squeeze(1), positions, tokens, grid, vocabulary_size=vocabulary_size)

    answers = read_outputs(chunks, list(asked), read)
    if answers and grid.tensor_rank == 0:
        for questions, (log_probability, is_likeliest) in zip(asked.values(), answers, strict=True):
            found = torch.stack([log_probability.double(), is_likeliest.double()], dim=1)
            totals.index_add_(0, questions.requests, found.cpu())
