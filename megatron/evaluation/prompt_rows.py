"""How a prompt or the context of an answer becomes a row: as the inputs of the model's training examples did."""

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

    @property
    def rule(self) -> str:
        """One sentence for those who read scores: what the model sees of a context, and how."""
        end = ", with an end token behind it," if self.ends_inputs else ""
        if self.is_split:
            return f"The encoder reads the context{end} both ways; the decoder predicts the continuation."
        both_ways = not (self.architecture.is_causal or self.reads_running_text)
        how = "both ways, as the model reads inputs" if both_ways else "from left to right"
        return f"The context{end} is read {how}; the continuation is predicted behind it."

    @property
    def is_split(self) -> bool:
        """An encoder reads what is given, a decoder writes."""
        return self.architecture.room(self.rules).is_split

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

    def prompt(self, tokens: Sequence[int]) -> list[int]:
        """A prompt or context as it is read: an empty one is the end token, behind which documents begin.

        It stays empty where an end token of inputs or a start token stands before what follows anyway.
        """
        has_start = self.rules.begins_with_start_token and not self.is_split
        return list(tokens) if tokens or self.ends_inputs or has_start else [self.rules.end_token]

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

    def given(self, context: Sequence[int], new_tokens: int) -> tuple[int, ...]:
        """What stands before a continuation of so many tokens, as training's inputs did.

        A context that is too long loses tokens from the left; an empty one is read as an empty prompt.
        """
        given = self.prompt(context[max(len(context) - self.longest_prompt(new_tokens), 0) :])
        return (*given, self.rules.end_token) if self.ends_inputs else tuple(given)

    def row_capacity(self, row_length: int | None = None) -> tuple[int, int]:
        """`positions` that a row of several examples has, by default as many as in training.

        row_length: of a decoder's only row, or of an encoder's.
        """
        length = row_length or self.rules.seq_length
        return (length, self.rules.decoder_seq_length) if self.is_split else (0, length)
