"""What an objective is: a pure function from a window to neutral examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, Self

from megatron.basics.draws import Draws
from megatron.objectives.options import ObjectiveOptions
from megatron.records.example import Example
from megatron.records.room import Room, Size
from megatron.records.special_tokens import SpecialTokens
from megatron.records.window import Window


class Objective(Protocol):
    """Says what is given and what is to be predicted; knows tokens and nothing of architectures.

    produces: the type of its examples; an architecture that `accepts` it can be trained with it. settings: the fields
    of ObjectiveOptions that it reads. keeps_text: inputs and targets one behind the other are the window, token for
    token. is_complete, ends_inputs: its examples are complete, and an end token stands behind their inputs, too (see
    `SequencePair`); settings on documents inside of complete examples count for nothing. marks_documents: its examples
    say where documents begin and may be cut there, so that a row may hide them from one another; where not, a window is
    cut there before the objective sees it. reads_pairs: its windows are examples that the data have as inputs and
    targets, and not text.
    """

    produces: ClassVar[type]
    settings: ClassVar[tuple[str, ...]]
    keeps_text: ClassVar[bool]
    is_complete: ClassVar[bool]
    ends_inputs: ClassVar[bool]
    marks_documents: ClassVar[bool]
    reads_pairs: ClassVar[bool]

    @classmethod
    def build(cls, options: ObjectiveOptions, special: SpecialTokens, room: Room) -> Self:
        """The objective for rows with this room. Raises UserError when the room or the vocabulary does not do."""

    def __call__(self, window: Window, draws: Draws) -> Sequence[Example]:
        """The examples of a window; all chance comes from `draws`, a function of (seed, sample)."""

    @property
    def window_length(self) -> int:
        """Tokens of a window whose examples fill a row."""

    @property
    def stride(self) -> int:
        """Tokens between the beginnings of two windows."""

    def size(self, num_tokens: int) -> Size:
        """What the examples of a window of `num_tokens` take at most; of a longer one never less."""
