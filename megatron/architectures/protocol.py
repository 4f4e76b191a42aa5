"""What an architecture is: it arranges examples into rows and builds the model that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from megatron.architectures.row_rules import RowRules
from megatron.architectures.shapes import LayerShape
from megatron.attention.registry import AttentionBackend
from megatron.layout.grid import Grid
from megatron.layout.options import LayoutOptions
from megatron.layout.stages import Stage
from megatron.losses.loss_sum import LossSum
from megatron.modeling.options import ModelOptions
from megatron.records.batch import Batch
from megatron.records.example import Example
from megatron.records.room import Room
from megatron.records.row import Row


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """What a model is built from, the same on every stage but for `stage` and `vp_stage`."""

    config: TransformerConfig
    options: ModelOptions
    stage: Stage
    attend: AttentionBackend
    vocabulary_size: int
    max_positions: int
    vp_stage: int | None
    dtype: torch.dtype


class Architecture(Protocol):
    """One way to arrange tokens and the model that goes with it."""

    name: ClassVar[str]
    accepts: ClassVar[tuple[type, ...]]  # the example types of `records.example` that it can arrange
    loss_names: ClassVar[tuple[str, ...]]
    ignores: ClassVar[Mapping[str, tuple[str, ...]]]  # settings that count for nothing, by section
    balances_stages: ClassVar[bool]  # layers differ in cost, so that stages may hold different numbers of them
    is_causal: ClassVar[bool]  # no position ever sees a later one, so that kernels made for this may be taken

    def room(self, rules: RowRules) -> Room:
        """How much of an example a row can hold."""

    def tokens_per_row(self, rules: RowRules) -> int:
        """Tokens that a row counts for, inputs and targets."""

    def arrange(self, examples: Sequence[Example], rules: RowRules) -> Row:
        """One row of fixed length from the examples of one sample. Raises ValueError when they do not fit."""

    def layers_of_chunks(
        self, model: ModelOptions, layout: LayoutOptions, lengths: tuple[int, int], padded_vocabulary_size: int
    ) -> list[int]:
        """Layers of each model chunk, in the order in which a token passes them.

        lengths: --seq-length and --decoder-seq-length, which with the vocabulary decide what layers and head cost.
        """

    def layers(self, model: ModelOptions, lengths: tuple[int, int]) -> tuple[LayerShape, ...]:
        """What its layers are, in the order in which a token passes them; lengths as in `layers_of_chunks`."""

    def build(self, parts: ModelParts) -> nn.Module:
        """The model chunk of one stage; its weights are drawn afterwards."""

    def initial_std(self, options: ModelOptions, name: str) -> float | tuple[float, ...] | None:
        """Standard deviation of the initial weights of a parameter by its global name; None leaves it zero.

        A tuple has one for each projection that the parameter stacks (`modeling.stacked_projections`).
        """

    def losses(
        self, outputs: Tensor, batch: Batch, grid: Grid, *, vocabulary_size: int, z_loss_coeff: float
    ) -> dict[str, LossSum]:
        """The losses of one micro-batch by name; the first one is trained on."""
