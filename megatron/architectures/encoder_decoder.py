"""The encoder-decoder (ED): one stack reads inputs both ways, another writes. Wang et al. 2022, section 2.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from megatron.architectures.filled import filled
from megatron.architectures.flops import VisiblePairs, layer_multiplications
from megatron.architectures.language_model import LanguageModel
from megatron.architectures.row_rules import RowRules
from megatron.architectures.shapes import LayerShape
from megatron.layout.options import LayoutOptions
from megatron.layout.stages import balanced_chunks
from megatron.modeling.options import ModelOptions
from megatron.records import visibility
from megatron.records.example import Example, SequencePair
from megatron.records.room import Room
from megatron.records.row import EncoderRow, Row

if TYPE_CHECKING:  # a command line is checked against this file before torch is imported
    from torch import nn

    from megatron.architectures.protocol import ModelParts


class EncoderDecoder(LanguageModel):
    """Inputs fill the encoder's row, targets the decoder's; cross attention joins those of one example."""

    name: ClassVar[str] = "encoder_decoder"
    accepts: ClassVar[tuple[type, ...]] = (SequencePair,)
    ignores: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": (
            "begin_with_start_token",
            "start_token",
            "reset_attention_mask",
            "reset_position_ids",
            "eod_mask_loss",
        ),
        "layout": ("decoder_first_pipeline_num_layers", "decoder_last_pipeline_num_layers"),
    }
    balances_stages: ClassVar[bool] = True
    is_causal: ClassVar[bool] = False

    def room(self, rules: RowRules) -> Room:
        """One row for inputs and one for targets."""
        inputs, targets = rules.seq_length, rules.decoder_seq_length
        return Room(inputs=inputs, targets=targets, total=inputs + targets)

    def tokens_per_row(self, rules: RowRules) -> int:
        """Positions of both rows: the study counts inputs and targets alike."""
        return rules.seq_length + rules.decoder_seq_length

    def arrange(self, examples: Sequence[Example], rules: RowRules) -> Row:
        """Inputs one behind the other in the encoder, targets in the decoder, each example blind to the others.

        Inputs 10 11 and 20 21 22 23, targets 12 13 14 15 and 24 25 make the rows

            encoder  10 11 20 21 22 23
            decoder   0 12 13 14  0 24     labels 12 13 14 15 24 25

        with positions that restart at each example; its decoder positions see all of its encoder positions. The start
        token stands before the first target, as T5's padding token does. Source: Raffel et al. 2020; seqio's packing.
        """
        inputs, labels = zip(*(example.ended(rules.end_token) for example in examples), strict=True)
        start = np.full(1, rules.start_token, np.int32)
        tokens = [np.concatenate([start, label])[: len(label)] for label in labels]
        encoder_length, length = rules.seq_length, rules.decoder_seq_length
        loss_mask = np.zeros(length, np.float32)
        loss_mask[: sum(map(len, labels))] = 1.0
        return Row(
            tokens=filled(tokens, length, rules.pad_token),
            labels=filled(labels, length, rules.pad_token),
            loss_mask=loss_mask,
            position_ids=filled([np.arange(len(part), dtype=np.int32) for part in labels], length, 0),
            intervals=visibility.packed([visibility.causal(len(part)) for part in labels], length),
            encoder=EncoderRow(
                tokens=filled(inputs, encoder_length, rules.pad_token),
                position_ids=filled([np.arange(len(part), dtype=np.int32) for part in inputs], encoder_length, 0),
                intervals=visibility.packed([visibility.bidirectional(len(part)) for part in inputs], encoder_length),
                cross_intervals=visibility.crossed(
                    [len(part) for part in labels], [len(part) for part in inputs], length
                ),
            ),
        )

    def layers_of_chunks(
        self, model: ModelOptions, layout: LayoutOptions, lengths: tuple[int, int], padded_vocabulary_size: int
    ) -> list[int]:
        """Stages are balanced by cost: a decoder layer is another price than an encoder layer, after their rows."""
        costs, head = layer_costs(model, self.layers(model, lengths), lengths, padded_vocabulary_size)
        return balanced_chunks(layout, costs, head)

    def layers(self, model: ModelOptions, lengths: tuple[int, int]) -> tuple[LayerShape, ...]:
        """Those of the encoder, then those of the decoder, which read the encoder's row as well."""
        inputs, targets = lengths
        last, shares = model.encoder_layers - 1, model.shares_bias_tables
        encoder = [
            LayerShape(stack="encoder", number=n, length=inputs, has_final_norm=n == last, shares_bias_table=shares)
            for n in range(model.encoder_layers)
        ]
        decoder = [
            LayerShape(stack="decoder", number=n, length=targets, context=inputs, shares_bias_table=shares)
            for n in range(model.decoder_layers)
        ]
        return (*encoder, *decoder)

    def build(self, parts: ModelParts) -> nn.Module:
        """One stage of both stacks."""
        from megatron.modeling import encoder_decoder

        return encoder_decoder.EncoderDecoder(
            parts.config,
            parts.options,
            parts.stage,
            parts.attend,
            padded_vocabulary_size=parts.options.padded_vocabulary_size(parts.vocabulary_size),
            max_positions=parts.max_positions,
            vp_stage=parts.vp_stage,
        )

    def residual_writers(self, options: ModelOptions, name: str) -> int:
        """Two in an encoder layer, three in a decoder layer."""
        return 2 * options.encoder_layers if name.startswith("encoder.") else 3 * options.decoder_layers


def layer_costs(
    model: ModelOptions, layers: Sequence[LayerShape], lengths: tuple[int, int], padded_vocabulary_size: int
) -> tuple[list[float], float]:
    """Multiplications of each layer and of the head for one row, forward.

    lengths: of the encoder's and the decoder's row, both full, each of one example.
    """
    inputs, targets = lengths
    pairs = VisiblePairs(decoder=targets**2 / 2, encoder=inputs**2, cross=inputs * targets)
    costs = [layer_multiplications(model, layer, pairs) for layer in layers]
    return costs, float(targets * model.hidden_size * padded_vocabulary_size)
