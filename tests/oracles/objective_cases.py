"""A vocabulary with every special token, and objectives built on it by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from megatron.objectives.options import ObjectiveOptions
from megatron.objectives.registry import OBJECTIVES
from megatron.records.room import Room
from megatron.records.special_tokens import SpecialTokens
from megatron.records.window import Window

TEXT, VOCABULARY = 1000, 1110  # ids below TEXT are text, but for the first three
SPECIAL = SpecialTokens(
    pad=0,
    end=1,
    unknown=2,
    sentinels=tuple(range(VOCABULARY - 1, VOCABULARY - 101, -1)),
    mode_tokens=(1000, 1001, 1002),
    fim_tokens=(1003, 1004, 1005),
)


def decoder_room(length: int, *, overlap: int = 1) -> Room:
    """The room of a decoder-only row of `length` positions."""
    return Room(length + overlap, length + overlap, length + overlap, overlap)


def two_rows(inputs: int, targets: int) -> Room:
    """The room of an encoder-decoder's two rows."""
    return Room(inputs, targets, inputs + targets)


def build(name: str, room: Room, special: SpecialTokens = SPECIAL, **options: Any) -> Any:
    """The objective `name` for rows with this room."""
    return OBJECTIVES[name].build(ObjectiveOptions(**options), special, room)


def window_of(tokens: Any, starts: Any = (), index: int = 0) -> Window:
    """A window of these tokens."""
    return Window(np.asarray(tokens, np.int32), np.asarray(starts, np.int32), index)


def random_window(length: int, seed: int = 0) -> Window:
    """A window of text."""
    return window_of(np.random.default_rng(seed).integers(3, TEXT, length))


def splice(inputs: list[int], targets: list[int], sentinels: set[int]) -> tuple[list[int], dict[int, list[int]]]:
    """The window again: each sentinel of the inputs gives way to what follows it in the targets; and what is left."""
    hidden: dict[int, list[int]] = {}
    for token in targets:
        if token in sentinels:
            gap = hidden.setdefault(token, [])
        else:
            gap.append(token)
    return [token for kept in inputs for token in hidden.pop(kept, [kept])], hidden
