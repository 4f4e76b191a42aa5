"""Model chunks, gradient buffers and optimizer of this process, from their sections."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.optimizer.optimizer import ChainedOptimizer
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from megatron.architectures.protocol import Architecture, ModelParts
from megatron.attention.registry import AttentionBackend
from megatron.device.device import Device
from megatron.layout import grid as grids
from megatron.layout.grid import Grid
from megatron.layout.initial_weights import draw_weights, mark_row_blocks, mark_shards
from megatron.layout.options import LayoutOptions
from megatron.layout.pipeline_copies import sum_gradients_of_copies
from megatron.layout.stages import stages_of
from megatron.loop.optimizers import build_optimizer
from megatron.loop.options import OptimizerOptions
from megatron.loop.replicated_optimizer import ReplicatedOptimizer
from megatron.modeling.config import transformer_config
from megatron.modeling.norms import initial_norm_weight
from megatron.modeling.options import ModelOptions
from megatron.modeling.stacked_projections import stacked_widths


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """All that decides the weights of a fresh model: the same recipe gives the same weights on every layout.

    lengths: tokens in a row and in the decoder's row of an encoder-decoder; they decide how layers are dealt to stages.
    """

    architecture: Architecture
    model: ModelOptions
    vocabulary_size: int
    max_positions: int
    seed: int
    lengths: tuple[int, int] = (1, 1)

    def layers_of_chunks(self, layout: LayoutOptions) -> list[int]:
        """Layers of each model chunk, in the order in which a token passes them."""
        padded_vocabulary_size = self.model.padded_vocabulary_size(self.vocabulary_size)
        return self.architecture.layers_of_chunks(self.model, layout, self.lengths, padded_vocabulary_size)


@dataclass(frozen=True)
class TrainableModel:
    """The chunks of this rank with gradient buffers, their configuration, and the optimizer."""

    config: TransformerConfig
    chunks: list[DistributedDataParallel]
    optimizer: ChainedOptimizer

    @property
    def inner_optimizer(self) -> DistributedOptimizer | ReplicatedOptimizer:
        """megatron-core chains one optimizer for dense weights and one for experts; here is only the first."""
        (inner,) = self.optimizer.chained_optimizers
        return inner

    @contextmanager
    def parameters_gathered(self) -> Iterator[None]:
        """Inside, every rank holds all updated parameters, also when they are otherwise gathered layer by layer."""
        overlapped = [chunk for chunk in self.chunks if chunk.ddp_config.overlap_param_gather]
        for chunk in overlapped:
            chunk.disable_forward_pre_hook(param_sync=True)
        try:
            yield
        finally:
            for chunk in overlapped:
                chunk.enable_forward_pre_hook()


def compute_dtype(options: OptimizerOptions) -> torch.dtype:
    """The dtype of weights and activations; master weights are float32 in any case."""
    if options.bf16:
        return torch.bfloat16
    return torch.float16 if options.fp16 else torch.float32


def build_chunks(
    recipe: ModelRecipe,
    layout: LayoutOptions,
    grid: Grid,
    device: Device,
    dtype: torch.dtype,
    attend: AttentionBackend,
) -> tuple[TransformerConfig, list[nn.Module]]:
    """The model chunks of this rank with their initial weights, on the device."""
    layers_of_chunks = recipe.layers_of_chunks(layout)
    config = transformer_config(recipe.model, layout, device, dtype, layers_of_chunks)
    interleaved = layout.num_virtual_stages_per_pipeline_rank is not None
    chunks = []
    for stage in stages_of(layout, layers_of_chunks):
        if stage.pipeline_rank != grid.pipeline_rank:
            continue
        parts = ModelParts(
            config=config,
            options=recipe.model,
            stage=stage,
            attend=attend,
            vocabulary_size=recipe.vocabulary_size,
            max_positions=recipe.max_positions,
            vp_stage=stage.virtual_rank if interleaved else None,
            dtype=dtype,
        )
        chunk = recipe.architecture.build(parts).to(device=device.torch_device, dtype=dtype)
        mark_shards(chunk)
        widths_of = partial(stacked_widths, recipe.model)
        sizes: dict[str, Any] = {"vocabulary_size": recipe.vocabulary_size, "gated": recipe.model.is_gated}
        mark_row_blocks(chunk, grid, widths_of, **sizes)
        draw_weights(
            chunk,
            grid,
            recipe.seed,
            partial(recipe.architecture.initial_std, recipe.model),
            widths_of,
            tied=not recipe.model.untie_embeddings_and_output_weights,
            norm_weight=initial_norm_weight(config),
            **sizes,
        )
        chunks.append(chunk)
    return config, chunks


def make_trainable(
    config: TransformerConfig,
    chunks: list[nn.Module],
    layout: LayoutOptions,
    options: OptimizerOptions,
    *,
    microbatch_tokens: int = 1,
) -> TrainableModel:
    """Add gradient buffers and the optimizer, and connect them with megatron-core's schedules.

    microbatch_tokens: positions of a micro-batch; with float16 they decide the size of what flows backwards.
    """
    ddp_config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=options.shards_state,
        overlap_grad_reduce=layout.overlap_grad_reduce,
        overlap_param_gather=layout.overlap_param_gather,
    )
    # Only the first chunk is bucketed: the others' reductions overlap with the pipeline already.
    wrapped = [
        DistributedDataParallel(config, ddp_config, chunk, disable_bucketing=number > 0)
        for number, chunk in enumerate(chunks)
    ]
    optimizer = build_optimizer(config, wrapped, layout, options)
    unit = loss_unit(options, microbatch_tokens)
    config.grad_scale_func = partial(_scale_loss, optimizer, unit)
    config.finalize_model_grads_func = partial(_finalize_grads, unit)
    if layout.overlap_grad_reduce:
        # Without it every micro-batch would start a reduction.
        syncs = [chunk.no_sync for chunk in wrapped]
        config.no_sync_func = syncs if len(syncs) > 1 else syncs[0]
    return TrainableModel(config, wrapped, optimizer)


def loss_unit(options: OptimizerOptions, microbatch_tokens: int) -> float:
    """What the loss of a micro-batch, a sum over its tokens, is multiplied by on its way backwards.

    float16 ends at 65504, so the sum is brought to the size of a mean: the largest power of two up to
    1 / microbatch_tokens, one for the whole run. The division by the tokens of the step takes it out again, exactly.
    The other formats have float32's range and need none.
    """
    return 2.0 ** -math.ceil(math.log2(microbatch_tokens)) if options.fp16 else 1.0


def _scale_loss(optimizer: ChainedOptimizer, unit: float, loss: Tensor) -> Tensor:
    return optimizer.scale_loss(loss if unit == 1.0 else loss * unit)


def _finalize_grads(unit: float, chunks: list[nn.Module], num_tokens: Tensor, **groups: Any) -> None:
    """megatron-core's reductions and its one division by all tokens of the step, here in units of the loss."""
    finalize_model_grads(chunks, num_tokens if unit == 1.0 else num_tokens * unit, **groups)
    sum_gradients_of_copies([cast(nn.Module, chunk.module) for chunk in chunks], grids.current())
