"""What causal and prefix decoders share: one stream of inputs and targets, and one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from megatron.architectures.filled import filled
from megatron.architectures.language_model import LanguageModel
from megatron.architectures.row_rules import RowRules
from megatron.architectures.shapes import LayerShape
from megatron.layout.options import LayoutOptions
from megatron.layout.stages import even_chunks
from megatron.modeling.options import ModelOptions
from megatron.records import visibility
from megatron.records.example import Example, RunningText, SequencePair
from megatron.records.room import Room
from megatron.records.row import Row

if TYPE_CHECKING:  # a command line is checked against this file before torch is imported
    from torch import nn

    from megatron.architectures.protocol import ModelParts


class DecoderOnly(LanguageModel):
    """Inputs and targets in one stream; each position predicts the next token."""

    name: ClassVar[str]
    accepts: ClassVar[tuple[type, ...]] = (RunningText, SequencePair)
    ignores: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("decoder_seq_length",),
        "model": ("encoder_num_layers", "decoder_num_layers", "relative_bias_per_layer"),
    }
    balances_stages: ClassVar[bool] = False
    is_causal: ClassVar[bool]

    def room(self, rules: RowRules) -> Room:
        """A row takes seq_length tokens behind start tokens; without them one more, which is a label alone."""
        overlap = 0 if rules.begins_with_start_token else 1
        tokens = rules.seq_length + overlap
        return Room(inputs=tokens, targets=tokens, total=tokens, overlap=overlap)

    def tokens_per_row(self, rules: RowRules) -> int:
        """Positions of a row."""
        return rules.seq_length

    def arrange(self, examples: Sequence[Example], rules: RowRules) -> Row:
        """Examples one behind the other, each blind to the others; loss where the label is a target of its example.

        Inputs 5 6, targets 7 8 9 make the row (. for no loss)

            tokens 5 6 7 8     labels 6 7 8 9     loss_mask . 1 1 1

        and with `begins_with_start_token`, as T5X feeds decoders (Wang et al. 2022),

            tokens 0 5 6 7 8     labels 5 6 7 8 9     loss_mask . . 1 1 1.

        Documents that begin inside an example restart the mask and the positions where the rules say so.
        """
        parts = [_laid_out(example, rules) for example in examples]
        length = rules.seq_length
        positions = [self._positions(part, rules) for part in parts]
        segments = [self._intervals(part, rules) for part in parts]
        if sum(map(len, segments)) == length + 1 and not rules.begins_with_start_token:
            parts[-1] = parts[-1].without_last_position()
            positions[-1] = positions[-1][:-1]
            segments[-1] = np.minimum(segments[-1][:-1], len(segments[-1]) - 1)
        is_whole = len(segments) == 1 and len(segments[0]) == length
        return Row(
            tokens=filled([part.tokens for part in parts], length, rules.pad_token),
            labels=filled([part.labels for part in parts], length, rules.pad_token),
            loss_mask=filled([part.loss_mask for part in parts], length, 0.0),
            position_ids=filled(positions, length, 0),
            intervals=segments[0] if is_whole else visibility.packed(segments, length),
        )

    def _positions(self, part: _Part, rules: RowRules) -> NDArray[np.int32]:
        positions = np.arange(len(part.tokens), dtype=np.int32)
        if rules.reset_position_ids and len(part.document_starts):
            positions -= visibility.documents(part.document_starts, len(positions))[:, 0]
        return positions

    def _intervals(self, part: _Part, rules: RowRules) -> visibility.Intervals:
        length = len(part.tokens)
        if rules.reset_attention_mask and len(part.document_starts):
            return visibility.documents(part.document_starts, length)
        return visibility.prefix(0 if self.is_causal else part.num_inputs, length)

    def layers_of_chunks(
        self, model: ModelOptions, layout: LayoutOptions, lengths: tuple[int, int], padded_vocabulary_size: int
    ) -> list[int]:
        """As many layers on each stage, but for the counts given for the first and the last."""
        return even_chunks(layout, model.num_layers)

    def layers(self, model: ModelOptions, lengths: tuple[int, int]) -> tuple[LayerShape, ...]:
        """Equal layers over the whole row."""
        return tuple(LayerShape(stack="decoder", number=n, length=lengths[0]) for n in range(model.num_layers))

    def build(self, parts: ModelParts) -> nn.Module:
        """One stage of a decoder."""
        from megatron.modeling.decoder import Decoder

        return Decoder(
            parts.config,
            parts.options,
            parts.stage,
            parts.attend,
            padded_vocabulary_size=parts.options.padded_vocabulary_size(parts.vocabulary_size),
            max_positions=parts.max_positions,
            vp_stage=parts.vp_stage,
        )

    def residual_writers(self, options: ModelOptions, name: str) -> int:
        """Attention and feed-forward of every layer."""
        return 2 * options.num_layers


@dataclass(frozen=True, eq=False)
class _Part:
    """One example in the stream. num_inputs: its first positions, which hold what is given."""

    tokens: NDArray[np.int32]
    labels: NDArray[np.int32]
    loss_mask: NDArray[np.float32]
    num_inputs: int
    document_starts: NDArray[np.int32]

    def without_last_position(self) -> _Part:
        """The last token is a label alone."""
        return replace(self, tokens=self.tokens[:-1], labels=self.labels[:-1], loss_mask=self.loss_mask[:-1])


def _laid_out(example: SequencePair, rules: RowRules) -> _Part:
    """Every token of the example as a position; without a start token the last one has nothing to predict."""
    inputs, targets = example.ended(rules.end_token)
    sequence = np.concatenate([inputs, targets])
    num_inputs = len(inputs)
    loss_mask = np.ones(len(sequence), np.float32)
    if rules.eod_mask_loss:  # by the token before, which is never the start token, though that may have the same id
        after_end = sequence == rules.end_token
        shift = int(rules.begins_with_start_token)
        loss_mask[shift:][after_end[: len(sequence) - shift]] = 0.0
    if rules.begins_with_start_token:
        loss_mask[:num_inputs] = 0.0
        tokens = np.concatenate([np.full(1, rules.start_token, np.int32), sequence[:-1]])
        starts = np.where(example.document_starts == 0, 0, example.document_starts + 1).astype(np.int32)
        return _Part(tokens, sequence, loss_mask, min(num_inputs + 1, len(tokens)), starts)
    loss_mask[: max(num_inputs - 1, 0)] = 0.0
    loss_mask[-1:] = 0.0
    labels = np.concatenate([sequence[1:], np.full(min(1, len(sequence)), rules.pad_token, np.int32)])
    return _Part(sequence, labels, loss_mask, num_inputs, example.document_starts)
