"""Rows of scored segments as a batch: what the model reads, and what is asked of its logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from megatron.data.collate import collate
from megatron.evaluation.branch_keys import Branch, branches_of
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.scored_rows import Segment
from megatron.records import visibility
from megatron.records.batch import Batch
from megatron.records.example import RunningText, SequencePair
from megatron.records.row import Row


@dataclass(frozen=True, eq=False)
class Questions:
    """What is asked of the logits of a batch, int64 [m] each: by which request, about which token, and where.

    positions count the columns of the batch's `head_positions`.
    """

    requests: Tensor
    tokens: Tensor
    positions: Tensor


def batch_of(
    rows: Sequence[Sequence[Segment]], prompt_rows: PromptRows, lengths: tuple[int, int]
) -> tuple[Batch, Questions]:
    """Rows as a batch in host memory whose head answers the questions of their segments.

    lengths: of the encoder's and the decoder's rows, at least the sums of `Segment.positions`.
    """
    batch = collate([_arranged(row, prompt_rows, lengths) for row in rows])
    branches = branches_of(_branches(rows), len(rows), lengths[1])
    head_positions, questions = _questions(rows)
    return (
        replace(batch, visibility=replace(batch.visibility, branches=branches), head_positions=head_positions),
        questions,
    )


def _questions(rows: Sequence[Sequence[Segment]]) -> tuple[Tensor, Questions]:
    """`head_positions` and what is asked there; the first tokens of all answers behind one trunk at one position."""
    heads: list[tuple[int, int]] = []
    questions: list[tuple[int, int, int]] = []
    for number, row in enumerate(rows):
        end = 0
        for segment in row:
            end += segment.trunk
            first_column = len(heads)
            if segment.trunk:
                heads.append((end - 1, number))
            for answer, length in zip(segment.answers, segment.lengths, strict=True):
                columns = [first_column] if segment.trunk else []
                columns += range(len(heads), len(heads) + length)
                heads += [(position, number) for position in range(end, end + length)]
                end += length
                for request, tokens in answer.asked:
                    questions += [(request, token, column) for token, column in zip(tokens, columns, strict=True)]
    requests, tokens, positions = torch.tensor(questions).t().contiguous()
    return torch.tensor(heads).t().contiguous(), Questions(requests, tokens, positions)


def _branches(rows: Sequence[Sequence[Segment]]) -> Iterator[Branch]:
    for number, row in enumerate(rows):
        begin = 0
        for segment in row:
            first = begin + segment.trunk
            for length in segment.lengths:
                if segment.has_branches and length:
                    yield Branch(number, begin, segment.trunk, first, length)
                first += length
            begin += segment.positions[1]


def _arranged(segments: Sequence[Segment], prompt_rows: PromptRows, lengths: tuple[int, int]) -> Row:
    """One row of segments in their order, the answers of each one behind the other.

    `arrange` takes answers behind one trunk as one text. Here they get the position ids that each has alone, and what
    they see: of an encoder's row all that is given, of a decoder's nothing yet, see `branch_keys`.
    """
    encoder_length, length = lengths
    sizes = (encoder_length, length) if prompt_rows.is_split else (length, 0)
    rules = replace(prompt_rows.rules, seq_length=sizes[0], decoder_seq_length=sizes[1])
    examples = [example for segment in segments for example in _examples(segment, prompt_rows)]
    row = prompt_rows.architecture.arrange(examples, rules)
    if row.encoder is not None:
        encoder, decoder = zip(*(segment.positions for segment in segments), strict=True)
        return replace(row, encoder=replace(row.encoder, cross_intervals=visibility.crossed(decoder, encoder, length)))
    position_ids, intervals = row.position_ids.copy(), row.intervals.copy()
    end = 0
    for segment in segments:
        first, end = end + segment.trunk, end + segment.positions[1]
        if segment.has_branches:
            position_ids[first:end] = segment.trunk + np.concatenate([np.arange(own) for own in segment.lengths])
            intervals[first:end] = first
    return replace(row, position_ids=position_ids, intervals=intervals)


def _examples(segment: Segment, prompt_rows: PromptRows) -> list[SequencePair]:
    """What `arrange` takes for a segment: every token that is read, and where it asks for one the label of the last."""
    nothing = np.zeros(0, np.int32)
    label = nothing if prompt_rows.architecture.room(prompt_rows.rules).overlap else np.zeros(1, np.int32)
    given = np.array(segment.given, np.int32)
    reads = [np.array(answer.read, np.int32) for answer in segment.answers]
    if prompt_rows.is_split:
        inputs = [given, *[nothing] * (len(reads) - 1)]
        return [SequencePair(own, np.concatenate([read, label])) for own, read in zip(inputs, reads, strict=True)]
    if prompt_rows.reads_running_text:
        return [RunningText(nothing, np.concatenate([given, *reads, label]))]
    return [SequencePair(given, np.concatenate([*reads, label]))]
