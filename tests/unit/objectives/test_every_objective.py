"""What holds for every objective of the table: purity, sizes, the protocol, and who may be trained with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from megatron.objectives.options import ObjectiveOptions
from megatron.objectives.registry import OBJECTIVES
from megatron.records.example import RunningText, SequencePair
from megatron.records.room import Room, Size
from tests.oracles.objective_cases import SPECIAL, build, decoder_room, random_window, two_rows, window_of

NAMES = list(OBJECTIVES)
ROOMS = [decoder_room(64), decoder_room(64, overlap=0), decoder_room(626), two_rows(64, 64), two_rows(512, 114)]


def rooms_of(name: str) -> list[Room]:
    """Running text has no inputs, so it is for decoders alone."""
    rooms = ROOMS if not issubclass(OBJECTIVES[name].produces, RunningText) else ROOMS[:3]
    return rooms


def lengths_with_ends(examples: Sequence[SequencePair]) -> tuple[int, int]:
    """Tokens of the inputs and of the targets as they are arranged."""
    ended = [example.ended(SPECIAL.end) for example in examples]
    return sum(len(inputs) for inputs, _ in ended), sum(len(targets) for _, targets in ended)


CASES = [(name, room) for name in NAMES for room in rooms_of(name)]


@pytest.mark.parametrize(("name", "room"), CASES)
def test_the_examples_of_a_window_fit_the_row_and_nearly_fill_it(name: str, room: Room) -> None:
    objective = build(name, room)
    assert 1 <= objective.stride <= objective.window_length
    for seed in range(20):
        examples = objective(random_window(objective.window_length, seed), Draws(seed))
        assert examples and all(isinstance(example, objective.produces) for example in examples)
        inputs, targets = lengths_with_ends(examples)
        assert room.holds(Size.of(inputs, targets))
        most = objective.size(objective.window_length)
        assert inputs <= most.inputs and targets <= most.targets and inputs + targets <= most.total
        assert all(example.is_complete == objective.is_complete for example in examples)
        assert all((example.is_complete and example.ends_inputs) == objective.ends_inputs for example in examples)


@pytest.mark.parametrize(("name", "room"), CASES)
def test_examples_are_a_function_of_window_and_seed(name: str, room: Room) -> None:
    objective, other = build(name, room), build(name, room)
    window = random_window(objective.window_length)
    other(window, Draws(9))  # what was drawn before changes nothing
    for first, second in zip(objective(window, Draws(5)), other(window, Draws(5)), strict=True):
        np.testing.assert_array_equal(first.inputs, second.inputs)
        np.testing.assert_array_equal(first.targets, second.targets)
    np.testing.assert_array_equal(window.tokens, random_window(objective.window_length).tokens)


@settings(deadline=None, max_examples=30)
@given(length=st.integers(1, 40), seed=st.integers(0, 2**63 - 1))
@pytest.mark.parametrize("name", NAMES)
def test_a_document_of_any_length_makes_examples_of_its_size(name: str, length: int, seed: int) -> None:
    """Packed documents come in all lengths, down to a single token."""
    objective = build(name, decoder_room(64))
    examples = objective(random_window(length, seed % 1000), Draws(seed))
    size = objective.size(length)
    inputs, targets = lengths_with_ends(examples)
    assert inputs <= size.inputs and targets <= size.targets and inputs + targets <= size.total
    assert all(more >= less for more, less in zip(objective.size(length + 1), size, strict=True))


@pytest.mark.parametrize("name", [name for name in NAMES if OBJECTIVES[name].is_complete])
def test_complete_examples_have_the_end_of_a_document_once(name: str) -> None:
    """Arranging puts an end token behind inputs and targets, so that of the document itself is left out."""
    objective = build(name, decoder_room(64))
    for seed in range(20):
        text = random_window(30, seed)
        ended = window_of([*text.tokens.tolist(), SPECIAL.end])
        for plain, other in zip(objective(text, Draws(seed)), objective(ended, Draws(seed)), strict=True):
            np.testing.assert_array_equal(plain.inputs, other.inputs)
            np.testing.assert_array_equal(plain.targets, other.targets)
    (alone,) = objective(window_of([SPECIAL.end]), Draws(0))
    assert SPECIAL.end not in alone.inputs and not len(alone.targets)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_fields_of_the_options(name: str) -> None:
    assert set(OBJECTIVES[name].settings) <= set(vars(ObjectiveOptions()))
    assert OBJECTIVES[name].__doc__


def test_every_setting_counts_for_some_objective() -> None:
    assert set().union(*(OBJECTIVES[name].settings for name in NAMES)) == set(vars(ObjectiveOptions()))


def test_a_misspelt_objective_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="--objective ful_lm is not known; did you mean full_lm"):
        OBJECTIVES["ful_lm"]
