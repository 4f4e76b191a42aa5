"""How a prompt becomes a row: as the inputs of the model's training examples did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megatron.architectures.protocol import Architecture
from megatron.architectures.row_rules import RowRules
from megatron.records.example import RunningText, SequencePair
from megatron.records.row import Row


@dataclass(frozen=True, kw_only=True)
class PromptRows:
    """Arranges prompts by the architecture's own `arrange`, so that each is read as inputs were during training.

    reads_running_text: the model knows no inputs, a prompt is the beginning of its one text. ends_inputs: inputs were
    complete texts with an end token behind them. rules: of the rows of training.
    """

    architecture: Architecture
    rules: RowRules
    reads_running_text: bool
    ends_inputs: bool

    def room_for_new(self, prompt_length: int) -> int:
        """The most tokens that a row takes behind a prompt of so many tokens; 0 or less where it is too long."""
        room = self.architecture.room(self.rules)
        inputs = prompt_length + (1 if self.ends_inputs else 0)
        return min(room.targets, room.total - inputs) if inputs <= room.inputs else 0

    def longest_prompt(self, new_tokens: int) -> int:
        """The most tokens of a prompt that leave room for so many new ones; 0 or less where none does."""
        room = self.architecture.room(self.rules)
        inputs = min(room.inputs, room.total - new_tokens) if new_tokens <= room.targets else 0
        return inputs - (1 if self.ends_inputs else 0)

    def arrange(self, prompt: Sequence[int]) -> tuple[Row, int]:
        """A row that is full behind the prompt, and the position that predicts the first new token.

        New token k is the label at that position + k and the token behind it. Until it is known padding stands there,
        which no position up to its prediction sees.
        """
        room = self.room_for_new(len(prompt))
        assert room > 0, "check_lengths comes first"
        given = np.array(prompt, np.int32)
        unknown = np.full(room, self.rules.pad_token, np.int32)
        if self.reads_running_text:
            example: SequencePair = RunningText(given[:0], np.concatenate([given, unknown]))
        else:
            end = np.full(1 if self.ends_inputs else 0, self.rules.end_token, np.int32)
            example = SequencePair(np.concatenate([given, end]), unknown)
        row = self.architecture.arrange([example], self.rules)
        return row, int(np.flatnonzero(row.loss_mask)[-room])
