"""Prompts in rows: as long as a row takes, read as training reads inputs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.evaluation.prompt_rows import PromptRows
from megatron.records import visibility

END, PAD = 1, 0


@st.composite
def all_prompt_rows(draw: st.DrawFn) -> PromptRows:
    architecture = draw(st.sampled_from(sorted(ARCHITECTURES)))
    rules = RowRules(
        seq_length=draw(st.integers(1, 12)),
        decoder_seq_length=draw(st.integers(1, 12)),
        end_token=END,
        begins_with_start_token=draw(st.booleans()),
    )
    running = architecture != "encoder_decoder" and draw(st.booleans())
    return PromptRows(
        architecture=ARCHITECTURES[architecture](),
        rules=rules,
        reads_running_text=running,
        ends_inputs=not running and draw(st.booleans()),
    )


@given(rows=all_prompt_rows(), length=st.integers(0, 14))
def test_new_tokens_follow_the_prompt(rows: PromptRows, length: int) -> None:
    """Every new token has a position that predicts it; the token it becomes is seen from then on, and not before."""
    prompt = rows.prompt(range(5, 5 + length))
    assert prompt == [*range(5, 5 + length)] or (length == 0 and prompt == [END])
    length = len(prompt)
    room = rows.room_for_new(length)
    if room < 1:
        return
    row, first = rows.arrange(prompt)
    assert row.labels[first:].tolist()[:room] == [PAD] * room and row.loss_mask[first : first + room].all()
    assert first + room <= len(row.tokens)
    seen = visibility.dense(row.intervals, len(row.tokens))
    for position in range(first, first + room):
        assert seen[position, first : position + 1].all() and not seen[position, position + 1 :].any()
    if row.encoder is None:
        assert [token for token in row.tokens[: first + 1] if token != PAD] == prompt + [END] * rows.ends_inputs
        assert seen[first, : first + 1].all()
    else:
        given_tokens = row.encoder.tokens[: length + rows.ends_inputs].tolist()
        assert given_tokens == prompt + [END] * rows.ends_inputs
        assert (row.encoder.cross_intervals[first : first + room] == [0, len(given_tokens)]).all()


@given(rows=all_prompt_rows(), new_tokens=st.integers(1, 14))
def test_the_longest_prompt_is_the_longest(rows: PromptRows, new_tokens: int) -> None:
    longest = rows.longest_prompt(new_tokens)
    assert longest < 1 or rows.room_for_new(longest) >= new_tokens
    assert rows.room_for_new(max(longest, 0) + 1) < new_tokens


@given(rows=all_prompt_rows(), length=st.integers(1, 12))
def test_prompts_are_read_both_ways_by_those_who_read_inputs_so(rows: PromptRows, length: int) -> None:
    if rows.room_for_new(length) < 1:
        return
    row, _ = rows.arrange(list(range(5, 5 + length)))
    side = row if row.encoder is None else row.encoder
    whole = length + rows.ends_inputs + (row.encoder is None and rows.rules.begins_with_start_token)
    both_ways = not rows.architecture.is_causal and not rows.reads_running_text
    ends = side.intervals[:whole, 1]
    assert np.array_equal(ends, np.full(len(ends), whole) if both_ways else np.arange(1, len(ends) + 1))
