"""What each question of a packed batch sees, whoever shares its row: its own context, and what precedes its token."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.scored_rows import ScoreRequest, batch_of, packed_rows, row_lengths, segments_of
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


@settings(deadline=None)
@given(
    rows=any_prompt_rows(),
    requests=st.lists(st.builds(ScoreRequest, some_tokens(0), some_tokens(1)), min_size=1, max_size=8),
    row_length=st.none() | st.integers(1, 60),
)
def test_each_question_sees_its_own_past_and_nothing_else(
    rows: PromptRows, requests: list[ScoreRequest], row_length: int | None
) -> None:
    packed = packed_rows(segments_of(requests, rows), rows.row_capacity(row_length))
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
    segments = segments_of(requests, rows)
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
        packed = packed_rows(segments_of(order, rows), rows.row_capacity())
        layouts.append([[segment.example.inputs.tolist() for segment in row] for row in packed])
    assert layouts[0] == layouts[1]
    assert len(segments_of(requests, rows)) == 4  # one request comes twice


def test_a_continuation_has_a_token() -> None:
    with pytest.raises(ValueError, match="must have a token to score"):
        ScoreRequest((5,), ())
    assert packed_rows([], (0, 10)) == []
