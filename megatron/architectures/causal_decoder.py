"""The causal decoder (CD): every position sees itself and what came before. Wang et al. 2022, section 2.1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from megatron.architectures.row_rules import RowRules
from megatron.modeling.options import ModelOptions
from megatron.records import visibility
from megatron.records.example import Example, SequencePair
from megatron.records.row import Row

if TYPE_CHECKING:  # a command line is checked against this file before torch is imported
    from torch import Tensor, nn

    from megatron.architectures.protocol import ModelParts
    from megatron.layout.grid import Grid
    from megatron.losses.loss_sum import LossSum
    from megatron.records.batch import Batch

RESIDUAL_WRITERS = ("linear_proj.weight", "linear_fc2.weight")


class CausalDecoder:
    """Inputs and targets in one stream; each position predicts the next token."""

    name: ClassVar[str] = "causal_decoder"
    accepts: ClassVar[tuple[type, ...]] = (SequencePair,)
    loss_names: ClassVar[tuple[str, ...]] = ("lm loss",)

    def arrange(self, examples: Sequence[Example], rules: RowRules) -> Row:
        """Inputs then targets, shifted by one: tokens = x[:-1], labels = x[1:], loss where the label is a target.

        One example of seq_length + 1 tokens makes a row. Documents that begin inside it restart the mask and the
        positions where the rules say so.
        """
        (example,) = examples
        sequence = np.concatenate([example.inputs, example.targets])
        length = len(sequence) - 1
        if length != rules.seq_length:
            raise ValueError(f"an example of {len(sequence)} tokens does not make a row of {rules.seq_length}")
        tokens, labels = sequence[:-1], sequence[1:]
        loss_mask = np.ones(length, np.float32)
        loss_mask[: max(len(example.inputs) - 1, 0)] = 0.0
        if rules.eod_mask_loss:
            loss_mask[tokens == rules.end_of_document] = 0.0
        by_document = visibility.documents(example.document_starts, length)
        positions = np.arange(length, dtype=np.int32)
        return Row(
            tokens=tokens,
            labels=labels,
            loss_mask=loss_mask,
            position_ids=positions - by_document[:, 0] if rules.reset_position_ids else positions,
            intervals=by_document if rules.reset_attention_mask else visibility.causal(length),
        )

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

    def initial_std(self, options: ModelOptions, name: str) -> float | None:
        """--init-method-std, over sqrt(2 x layers) for matrices that write to the residual stream.

        Source: GPT-2, Radford et al. 2019, section 2.3.
        """
        if name.endswith(RESIDUAL_WRITERS):
            return options.init_method_std / math.sqrt(2.0 * options.num_layers)
        return options.init_method_std

    def losses(
        self, outputs: Tensor, batch: Batch, grid: Grid, *, vocabulary_size: int, z_loss_coeff: float
    ) -> dict[str, LossSum]:
        """Cross entropy of the next token."""
        from megatron.losses.token_cross_entropy import token_cross_entropy

        loss = token_cross_entropy(outputs, batch, grid, vocabulary_size=vocabulary_size, z_loss_coeff=z_loss_coeff)
        return {"lm loss": loss}
