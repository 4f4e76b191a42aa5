"""Multitask prompted finetuning: the answer is predicted behind the prompt that a template made of an example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from megatron.objectives.end_token import without_end
from megatron.objectives.options import ObjectiveOptions
from megatron.records.example import SequencePair
from megatron.records.room import Room, Size
from megatron.records.special_tokens import SpecialTokens
from megatron.records.window import Window

USUAL_INPUTS = 1024 / (1024 + 256)  # of the tokens of an example: T0's lengths


@dataclass(frozen=True, kw_only=True)
class Multitask:
    """MT-F: inputs and targets are what the data say; nothing is drawn.

    Window 5 6 7 with two inputs: inputs 5 6, targets 7, behind which alone an end token stands, as T0 has it. One that
    ends the window is left out.

    A window that does not say how many inputs it has, as one that is made up to see what rows look like, has the share
    of them that fills two rows alike, or in one row that of T0's lengths.

    Source: Sanh et al. 2022, section 4 and t0/seqio_tasks/tasks.py of t-zero; Wang et al. 2022, section 3.
    """

    produces: ClassVar[type] = SequencePair
    settings: ClassVar[tuple[str, ...]] = ()
    keeps_text: ClassVar[bool] = True
    is_complete: ClassVar[bool] = True
    ends_inputs: ClassVar[bool] = False
    marks_documents: ClassVar[bool] = False
    reads_pairs: ClassVar[bool] = True

    room: Room
    end_token: int

    @classmethod
    def build(cls, options: ObjectiveOptions, special: SpecialTokens, room: Room) -> Self:
        """The objective for rows with this room. Raises UserError when a row cannot hold any example."""
        objective = cls(room=room, end_token=special.end)
        if not room.holds(objective.size(2)):
            raise UserError(
                "--objective multitask needs rows that hold an input, a target and its end token; raise --seq-length "
                "or --decoder-seq-length."
            )
        return objective

    def __call__(self, window: Window, draws: Draws) -> tuple[SequencePair, ...]:
        """One example."""
        tokens = without_end(window.tokens, self.end_token)
        inputs = self._usual_inputs(len(tokens)) if window.num_inputs is None else min(window.num_inputs, len(tokens))
        return (SequencePair(inputs=tokens[:inputs], targets=tokens[inputs:], is_complete=True, ends_inputs=False),)

    @property
    def window_length(self) -> int:
        """Tokens of an example that fills a row."""
        return self.room.longest(self.size)

    @property
    def stride(self) -> int:
        """Examples share nothing."""
        return self.window_length

    def size(self, num_tokens: int) -> Size:
        """Of an example whose inputs have the usual share; of others the data know better."""
        inputs = self._usual_inputs(num_tokens)
        return Size.of(inputs, num_tokens - inputs + 1)

    def _usual_inputs(self, num_tokens: int) -> int:
        share = self.room.inputs / self.room.total if self.room.is_split else USUAL_INPUTS
        return min(int(num_tokens * share), max(num_tokens - 1, 0))
