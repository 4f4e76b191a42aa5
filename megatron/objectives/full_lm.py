"""Full language modelling: every token is predicted from all tokens before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from megatron.basics.draws import Draws
from megatron.objectives.options import ObjectiveOptions
from megatron.records.example import RunningText
from megatron.records.room import Room, Size
from megatron.records.special_tokens import SpecialTokens
from megatron.records.window import Window


@dataclass(frozen=True, kw_only=True)
class FullLM:
    """FLM: no inputs, all tokens are targets. Radford et al. 2018, section 3.1; Wang et al. 2022, section 2.2.

    Window 5 6 7 8 9 with a document that begins at 7: inputs (), targets 5 6 7 8 9, document_starts 2.
    """

    produces: ClassVar[type] = RunningText
    settings: ClassVar[tuple[str, ...]] = ()
    keeps_text: ClassVar[bool] = True
    is_complete: ClassVar[bool] = False
    ends_inputs: ClassVar[bool] = False
    marks_documents: ClassVar[bool] = True
    reads_pairs: ClassVar[bool] = False

    room: Room

    @classmethod
    def build(cls, options: ObjectiveOptions, special: SpecialTokens, room: Room) -> Self:
        """The objective for rows with this room; any will do."""
        return cls(room=room)

    def __call__(self, window: Window, draws: Draws) -> tuple[RunningText, ...]:
        """One example: the window itself."""
        nothing = np.zeros(0, np.int32)
        return (RunningText(inputs=nothing, targets=window.tokens, document_starts=window.document_starts),)

    @property
    def window_length(self) -> int:
        """As many tokens as a row takes."""
        return self.room.total

    @property
    def stride(self) -> int:
        """Such that every token is a label once."""
        return self.room.total - self.room.overlap

    def size(self, num_tokens: int) -> Size:
        """All are targets."""
        return Size.of(0, num_tokens)
