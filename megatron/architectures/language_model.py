"""What all architectures that write text share: the loss on their words, and how their weights begin."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from megatron.modeling.options import ModelOptions
from megatron.modeling.t5_initial_std import t5_initial_std

if TYPE_CHECKING:  # a command line is checked against this file before torch is imported
    from torch import Tensor

    from megatron.layout.grid import Grid
    from megatron.losses.loss_sum import LossSum
    from megatron.records.batch import Batch

RESIDUAL_WRITERS = ("linear_proj.weight", "linear_fc2.weight")


class LanguageModel(ABC):
    """Predicts tokens from left to right."""

    loss_names: ClassVar[tuple[str, ...]] = ("lm loss",)

    @abstractmethod
    def residual_writers(self, options: ModelOptions, name: str) -> int:
        """Sublayers that write to the residual stream which the parameter `name` writes to."""

    def initial_std(self, options: ModelOptions, name: str) -> float | tuple[float, ...] | None:
        """T5's with --init-method t5; else --init-method-std, smaller for what writes to the residual stream.

        There it is over the square root of the number of all sublayers that write to the same stream.
        Source: GPT-2, Radford et al. 2019, section 2.3.
        """
        if options.init_method == "t5":
            return t5_initial_std(options, name)
        if name.endswith(RESIDUAL_WRITERS):
            return options.init_method_std / math.sqrt(self.residual_writers(options, name))
        return options.init_method_std

    def losses(
        self, outputs: Tensor, batch: Batch, grid: Grid, *, vocabulary_size: int, z_loss_coeff: float
    ) -> dict[str, LossSum]:
        """Cross entropy of the next token."""
        from megatron.losses.token_cross_entropy import token_cross_entropy

        loss = token_cross_entropy(outputs, batch, grid, vocabulary_size=vocabulary_size, z_loss_coeff=z_loss_coeff)
        return {"lm loss": loss}
