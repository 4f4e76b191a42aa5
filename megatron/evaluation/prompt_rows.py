"""How a prompt or the context of an answer becomes a row: as the inputs of the model's training examples did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
        if self._has_two_rows:
            return f"The encoder reads the context{end} both ways; the decoder predicts the continuation."
        both_ways = not (self.architecture.is_causal or self.reads_running_text)
        how = "both ways, as the model reads inputs" if both_ways else "from left to right"
        return f"The context{end} is read {how}; the continuation is predicted behind it."

    @property
    def _has_two_rows(self) -> bool:
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

    def scored(self, context: Sequence[int], continuation: Sequence[int]) -> SequencePair:
        """The example whose last len(continuation) positions predict the continuation.

        A context that is too long loses tokens from the left. An empty one is the end token, behind which documents
        begin, where neither an end token of inputs nor a start token stands before the continuation. Where the last
        token of the continuation would be no label but a position of its own, it is left out.
        """
        room = self.architecture.room(self.rules)
        given = list(context[max(len(context) - self.longest_prompt(len(continuation)), 0) :])
        if self.ends_inputs:
            given.append(self.rules.end_token)
        if not given and (room.is_split or not self.rules.begins_with_start_token):
            given.append(self.rules.end_token)
        targets = list(continuation[: len(continuation) - room.overlap])
        if self.reads_running_text:
            return RunningText(np.zeros(0, np.int32), np.array(given + targets, np.int32))
        return SequencePair(np.array(given, np.int32), np.array(targets, np.int32))

    def positions(self, example: SequencePair) -> tuple[int, int]:
        """(positions of the encoder's row, positions of the decoder's) that an example of `scored` takes."""
        inputs, targets = len(example.inputs), len(example.targets)
        return (inputs, targets) if self._has_two_rows else (0, inputs + targets)

    def row_capacity(self, row_length: int | None = None) -> tuple[int, int]:
        """`positions` that a row of several examples has, by default as many as in training.

        row_length: of a decoder's only row, or of an encoder's.
        """
        length = row_length or self.rules.seq_length
        return (length, self.rules.decoder_seq_length) if self._has_two_rows else (0, length)

    def packed(self, examples: Sequence[SequencePair], lengths: tuple[int, int]) -> Row:
        """One row of examples of `scored`, in their order, the decoder's positions of each behind those of the last.

        lengths: of the encoder's and the decoder's row, at least the sums of `positions`.
        """
        encoder_length, length = lengths
        sizes = (encoder_length, length) if self._has_two_rows else (length, 0)
        rules = replace(self.rules, seq_length=sizes[0], decoder_seq_length=sizes[1])
        return self.architecture.arrange(examples, rules)
