"""Prompted examples: inputs and targets as the data have them, an end token behind targets alone."""

from __future__ import annotations

import numpy as np
import pytest

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from megatron.records.room import Room
from megatron.records.window import Window
from tests.oracles.objective_cases import SPECIAL, build, decoder_room, two_rows


def window(tokens: list[int], num_inputs: int | None) -> Window:
    return Window(np.array(tokens, np.int32), np.zeros(1, np.int32), 0, num_inputs)


@pytest.mark.parametrize("num_inputs", [0, 2, 5])
def test_inputs_and_targets_are_what_the_window_says(num_inputs: int) -> None:
    tokens = [5, 6, 7, 8, 9]
    (example,) = build("multitask", decoder_room(64))(window(tokens, num_inputs), Draws(1))
    assert (example.inputs.tolist(), example.targets.tolist()) == (tokens[:num_inputs], tokens[num_inputs:])
    ended_inputs, ended_targets = example.ended(SPECIAL.end)
    assert ended_inputs.tolist() == tokens[:num_inputs] and ended_targets.tolist() == [
        *tokens[num_inputs:],
        SPECIAL.end,
    ]


def test_targets_that_have_an_end_token_get_no_other() -> None:
    (example,) = build("multitask", decoder_room(64))(window([5, 6, 7, SPECIAL.end], 2), Draws(1))
    assert example.ended(SPECIAL.end)[1].tolist() == [7, SPECIAL.end]


def test_a_window_that_does_not_say_is_cut_as_rows_are() -> None:
    for room, inputs, targets in ((decoder_room(1280), 1024, 256), (two_rows(1024, 256), 1024, 256)):
        objective = build("multitask", room)
        (example,) = objective(window([5] * objective.window_length, None), Draws(1))
        assert abs(len(example.inputs) - inputs) <= 5 and abs(len(example.targets) + 1 - targets) <= 5


@pytest.mark.parametrize("room", [Room(2, 2, 2), Room(8, 1, 9)])
def test_rows_that_hold_no_example_are_refused(room: Room) -> None:
    with pytest.raises(UserError, match="--objective multitask needs rows that hold an input, a target and its end"):
        build("multitask", room)
