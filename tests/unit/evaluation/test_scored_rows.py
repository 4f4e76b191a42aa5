"""What each question of a packed batch sees, whoever shares its row: its own context, and what precedes its token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.scored_batch import batch_of
from megatron.evaluation.scored_rows import ScoreRequest, packed_rows, row_lengths, segments_of
from megatron.records import visibility
from megatron.records.batch import Batch

END, START = 1, 2


@st.composite
def any_prompt_rows(draw: st.DrawFn) -> PromptRows:
    architecture = draw(st.sampled_from(sorted(ARCHITECTURES)))
    running = architecture != "encoder_decoder" and draw(st.booleans())
    rules = RowRules(
        seq_length=draw(st.integers(4, 24)),
        decoder_seq_length=draw(st.integers(2, 12)),
        end_token=END,
        start_token=START,
        begins_with_start_token=draw(st.booleans()),
    )
    return PromptRows(
        architecture=ARCHITECTURES[architecture](),
        rules=rules,
        reads_running_text=running,
        ends_inputs=not running and draw(st.booleans()),
    )


def some_tokens(shortest: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(5, 9), min_size=shortest, max_size=30).map(tuple)


def seen_at(batch: Batch, position: int, row: int) -> tuple[list[int], list[int]]:
    """(tokens of the encoder, tokens of the decoder) that a position sees."""
    own = visibility.dense(batch.visibility.intervals[row].numpy(), batch.tokens.shape[1])[position]
    tokens = batch.tokens[row].numpy()[own].tolist()
    for branches in batch.visibility.branches:
        for branch, column, *target in torch.cat([branches.origins, branches.targets]).t().tolist():
            if target == [position, row]:
                begin, end = branches.visibility.intervals[branch, column].tolist()
                places = branches.keys[branch, begin:end]
                tokens = batch.tokens.t().flatten()[places].tolist()
                ids = batch.position_ids.t().flatten()[places].tolist()
                assert ids == list(range(len(places)))
    if batch.encoder is None:
        return [], tokens
    cross = visibility.dense(batch.encoder.cross_visibility.intervals[row].numpy(), batch.encoder.tokens.shape[1])
    return batch.encoder.tokens[row].numpy()[cross[position]].tolist(), tokens


def must_see(rows: PromptRows, context: tuple[int, ...], before: tuple[int, ...], length: int) -> tuple[list, list]:
    """The same for the token behind `before` in a piece of `length` tokens."""
    is_split = rows.architecture.name == "encoder_decoder"
    inputs = list(context) + [END] * rows.ends_inputs
    if not inputs and (is_split or not rows.rules.begins_with_start_token):
        inputs = [END]
    room = rows.rules.seq_length
    if not is_split:
        room += not rows.rules.begins_with_start_token
        room -= length
    inputs = inputs[-room:] if room else []
    if is_split:
        return inputs, [START, *before]
    return [], [START] * rows.rules.begins_with_start_token + inputs + list(before)


@settings(deadline=None, max_examples=50)
@given(
    rows=any_prompt_rows(),
    contexts=st.lists(some_tokens(0), min_size=1, max_size=3),
    answers=st.lists(st.tuples(st.integers(0, 2), some_tokens(1)), min_size=1, max_size=8),
    row_length=st.none() | st.integers(1, 60),
    shares_contexts=st.booleans(),
)
def test_each_question_sees_its_own_past_and_nothing_else(
    rows: PromptRows,
    contexts: list[tuple[int, ...]],
    answers: list[tuple[int, tuple[int, ...]]],
    row_length: int | None,
    shares_contexts: bool,
) -> None:
    requests = [ScoreRequest(contexts[number % len(contexts)], answer) for number, answer in answers]
    capacity = rows.row_capacity(row_length)
    packed = packed_rows(segments_of(requests, rows, capacity, shares_contexts=shares_contexts), capacity)
    batch, questions = batch_of(packed, rows, row_lengths(packed))
    assert batch.head_positions is not None
    answered: dict[int, list[tuple[int, tuple[list[int], list[int]]]]] = {}
    for request, token, column in zip(*(t.tolist() for t in vars(questions).values()), strict=True):
        position, row = batch.head_positions[:, column].tolist()
        answered.setdefault(request, []).append((token, seen_at(batch, position, row)))
    piece = rows.room_for_new(1)
    for number, request in enumerate(requests):
        wanted = []
        for begin in range(0, len(request.continuation), piece):
            tokens = request.continuation[begin : begin + piece]
            context = request.context + request.continuation[:begin]
            for place, token in enumerate(tokens):
                wanted.append((token, must_see(rows, context, tokens[:place], len(tokens))))
        assert sorted(answered[number]) == sorted(wanted)


def test_rows_are_full() -> None:
    """Sixty requests of 10 to 29 positions in rows of 100: no more rows than 95 % fullness needs."""
    rules = RowRules(seq_length=100, end_token=END)
    rows = PromptRows(
        architecture=ARCHITECTURES["causal_decoder"](), rules=rules, reads_running_text=True, ends_inputs=False
    )
    requests = [ScoreRequest(tuple([5] * (10 + number % 20)), (6 + number,)) for number in range(60)]
    requests = [ScoreRequest((number + 7, *one.context[1:]), one.continuation) for number, one in enumerate(requests)]
    segments = segments_of(requests, rows, rows.row_capacity())
    assert len(segments) == 60
    packed = packed_rows(segments, rows.row_capacity())
    used = [sum(segment.positions[1] for segment in row) for row in packed]
    assert sum(used) == sum(len(request.context) for request in requests) and max(used) <= 100
    assert len(packed) <= sum(used) / 95 + 1


def test_the_order_of_requests_does_not_decide_the_rows() -> None:
    rows = PromptRows(
        architecture=ARCHITECTURES["prefix_decoder"](),
        rules=RowRules(seq_length=32, end_token=END),
        reads_running_text=False,
        ends_inputs=False,
    )
    requests = [ScoreRequest(tuple(range(5, 5 + length)), (7, 8)) for length in (3, 9, 4, 20, 9)]
    layouts = []
    for order in (requests, requests[::-1]):
        packed = packed_rows(segments_of(order, rows, rows.row_capacity()), rows.row_capacity())
        layouts.append([[segment.given for segment in row] for row in packed])
    assert layouts[0] == layouts[1]
    assert len(segments_of(requests, rows, rows.row_capacity())) == 4  # one request comes twice


@pytest.mark.parametrize(("architecture", "positions"), [("causal_decoder", (0, 32)), ("encoder_decoder", (20, 16))])
def test_a_context_is_read_once_for_all_its_answers(architecture: str, positions: tuple[int, int]) -> None:
    """Four answers of four tokens behind twenty, as many as fit a row at a time."""
    rules = RowRules(seq_length=64, decoder_seq_length=64, end_token=END)
    rows = PromptRows(
        architecture=ARCHITECTURES[architecture](), rules=rules, reads_running_text=False, ends_inputs=False
    )
    requests = [ScoreRequest(tuple(range(10, 30)), (number, 5, 5, 6)) for number in range(5, 9)]
    (segment,) = segments_of(requests, rows, rows.row_capacity())
    assert segment.positions == positions and len(segment.answers) == 4
    small = segments_of(requests, rows, (20, 8) if architecture == "encoder_decoder" else (0, 27))
    assert [len(one.answers) for one in small] == [2, 2]
    alone = segments_of(requests, rows, rows.row_capacity(), shares_contexts=False)
    assert [len(one.answers) for one in alone] == [1, 1, 1, 1]


def test_a_continuation_has_a_token() -> None:
    with pytest.raises(ValueError, match="must have a token to score"):
        ScoreRequest((5,), ())
    assert packed_rows([], (0, 10)) == []
