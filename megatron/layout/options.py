"""How the model and the batch are spread over processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from megatron.basics.option import Options, option


@dataclass(frozen=True, kw_only=True)
class LayoutOptions(Options):
    """Sizes of the parallel dimensions; what is left of the world is data parallel.

    Adam's state is always sharded over the data-parallel group (ZeRO stage 1): holding it twice has no use. That of
    Adafactor is small, and needs whole rows and columns: every rank holds it.
    """

    group: ClassVar[str] = "layout"

    tensor_model_parallel_size: int = option(1, "Processes that share each layer.", minimum=1)
    pipeline_model_parallel_size: int = option(1, "Processes that share the stack of layers.", minimum=1)
    num_virtual_stages_per_pipeline_rank: int | None = option(
        None, "Interleave this many chunks of layers on each pipeline rank.", minimum=2
    )
    decoder_first_pipeline_num_layers: int | None = option(
        None, "Layers on the first pipeline stage, for an uneven split.", minimum=1
    )
    decoder_last_pipeline_num_layers: int | None = option(
        None, "Layers on the last pipeline stage, for an uneven split.", minimum=1
    )
    sequence_parallel: bool = option(False, "Split norms and dropout along the sequence over the tensor group.")
    overlap_grad_reduce: bool = option(False, "Reduce gradients while the backward pass still runs.")
    overlap_param_gather: bool = option(False, "Gather updated parameters while the next forward pass starts.")
    recompute_granularity: str | None = option(
        None,
        "Recompute activations: whole layers (full) or attention alone (selective).",
        choices=("full", "selective"),
    )
    recompute_method: str = option(
        "uniform",
        "With full: every --recompute-num-layers layers, or only the first of them.",
        choices=("uniform", "block"),
    )
    recompute_num_layers: int = option(
        1, "Layers in a recomputed unit (uniform) or recomputed layers (block).", minimum=1
    )
    device: str = option(
        "auto", "Where to compute; auto takes CUDA when a GPU is there.", choices=("auto", "cpu", "cuda")
    )
    distributed_timeout_minutes: int = option(10, "Minutes after which a silent collective ends the run.", minimum=1)

    @property
    def model_parallel_size(self) -> int:
        """Processes that hold one copy of the model."""
        return self.tensor_model_parallel_size * self.pipeline_model_parallel_size

    def rules(self) -> Iterator[str]:
        """Which of these settings need each other."""
        if self.sequence_parallel and self.tensor_model_parallel_size == 1:
            yield "--sequence-parallel needs --tensor-model-parallel-size 2 or more; leave it out."
        if self.num_virtual_stages_per_pipeline_rank and self.pipeline_model_parallel_size == 1:
            yield "--num-virtual-stages-per-pipeline-rank needs --pipeline-model-parallel-size 2 or more."
        if self.overlap_param_gather and not self.overlap_grad_reduce:
            yield "--overlap-param-gather needs --overlap-grad-reduce; add it."
        if self.recompute_granularity != "full":
            names = ("recompute_method", "recompute_num_layers")
            yield from self.without_effect(names, "without --recompute-granularity full")
        uneven = self.decoder_first_pipeline_num_layers or self.decoder_last_pipeline_num_layers
        if uneven and self.pipeline_model_parallel_size == 1:
            yield (
                "--decoder-first-pipeline-num-layers and --decoder-last-pipeline-num-layers need "
                "--pipeline-model-parallel-size 2 or more."
            )
