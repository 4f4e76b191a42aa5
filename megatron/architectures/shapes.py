"""The shape of a model as numbers: what its layers are, from which weights, FLOPs, memory and traffic follow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from megatron.layout.options import LayoutOptions
from megatron.layout.stages import Stage, stages_of
from megatron.modeling.options import ModelOptions

if TYPE_CHECKING:  # figures are computed before torch is imported, or without it
    from megatron.architectures.protocol import Architecture


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One layer: `number` of its `stack` ("encoder" or "decoder"), which holds `length` positions of a row.

    context: positions that its cross attention reads; 0 means that it has none. has_final_norm: the norm of its stack
    stands behind it (a decoder's stands with the head). shares_bias_table: a bias by distance is the stack's, not its
    own.
    """

    stack: str
    number: int
    length: int
    context: int = 0
    has_final_norm: bool = False
    shares_bias_table: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelShape:
    """A model and the rows it reads. lengths: tokens in a row, and in the decoder's row of an encoder-decoder."""

    architecture: Architecture
    model: ModelOptions
    vocabulary_size: int
    max_positions: int
    lengths: tuple[int, int]

    @property
    def padded_vocabulary_size(self) -> int:
        """Rows of the embedding table."""
        return self.model.padded_vocabulary_size(self.vocabulary_size)

    @cached_property
    def layers(self) -> tuple[LayerShape, ...]:
        """All layers in the order in which a token passes them."""
        return self.architecture.layers(self.model, self.lengths)

    @cached_property
    def stacks(self) -> dict[str, int]:
        """Positions of a row in each stack, by its name."""
        return {layer.stack: layer.length for layer in self.layers}

    @property
    def stream_length(self) -> int:
        """Positions that travel from stage to stage for a row, which are also the tokens it counts for."""
        return sum(self.stacks.values())

    @property
    def head_length(self) -> int:
        """Positions of a row that the vocabulary head reads."""
        return self.layers[-1].length

    def whole(self) -> Stage:
        """The model as one stage."""
        return Stage(0, 0, 0, len(self.layers), holds_embedding=True, holds_head=True)

    def stages(self, layout: LayoutOptions) -> list[Stage]:
        """All model chunks of a layout."""
        key = (
            layout.pipeline_model_parallel_size,
            layout.num_virtual_stages_per_pipeline_rank,
            layout.decoder_first_pipeline_num_layers,
            layout.decoder_last_pipeline_num_layers,
        )
        if key not in self._stages:  # a search asks for the same ones often, and balancing takes time
            layers_of_chunks = self.architecture.layers_of_chunks(
                self.model, layout, self.lengths, self.padded_vocabulary_size
            )
            self._stages[key] = stages_of(layout, layers_of_chunks)
        return self._stages[key]

    @cached_property
    def _stages(self) -> dict[tuple[int | None, ...], list[Stage]]:
        return {}

    def layers_of(self, stage: Stage) -> tuple[LayerShape, ...]:
        """The layers of one chunk."""
        return self.layers[stage.first_layer : stage.first_layer + stage.num_layers]

    def kinds_of(self, stage: Stage, first: int, end: int) -> dict[LayerShape, int]:
        """How many of the layers [first, end) of a chunk are of each kind, whose example has number 0."""
        key = (stage.first_layer + first, stage.first_layer + end)
        if key not in self._kinds:
            self._kinds[key] = Counter(replace(layer, number=0) for layer in self.layers[slice(*key)])
        return self._kinds[key]

    @cached_property
    def _kinds(self) -> dict[tuple[int, int], dict[LayerShape, int]]:
        return {}
