"""Builds the parts of a run that compute, each from its own section."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from megatron.architectures.protocol import Architecture
from megatron.architectures.registry import ARCHITECTURES
from megatron.attention.registry import AttentionBackend, choose_backend
from megatron.basics.draws import Draws
from megatron.cli.figures import has_plainly_causal_masks, model_shape
from megatron.cli.run_config import RunConfig
from megatron.cli.wire_rows import build_objective, build_rows, row_rules
from megatron.data.batch_positions import BatchGeometry
from megatron.data.loader import Loader
from megatron.device.device import Device
from megatron.evaluation.prompt_rows import PromptRows
from megatron.layout.grid import Grid
from megatron.loop.setup import ModelRecipe
from megatron.objectives.registry import OBJECTIVES
from megatron.records.example import RunningText
from megatron.records.window import Window
from megatron.tokenization.tokenizer import Tokenizer


def attention_backend(config: RunConfig, device: Device) -> tuple[str, AttentionBackend]:
    """The attention backend of a run, by name and as a function."""
    return choose_backend(
        config.model.attention_backend,
        is_cuda=device.is_cuda,
        is_causal=has_plainly_causal_masks(config),
        has_bias=config.model.position_embedding_type in ("alibi", "relative"),
    )


def model_recipe(config: RunConfig, vocabulary_size: int) -> ModelRecipe:
    """What decides the weights of a fresh model."""
    shape = model_shape(config, vocabulary_size)
    return ModelRecipe(
        architecture=shape.architecture,
        model=shape.model,
        vocabulary_size=vocabulary_size,
        max_positions=shape.max_positions,
        seed=config.batch.seed,
        lengths=shape.lengths,
    )


def prompt_rows_of(config: RunConfig, tokenizer: Tokenizer) -> PromptRows:
    """How a trained model is given prompts: as it was given inputs, which the example of any window shows."""
    architecture: Architecture = ARCHITECTURES[config.architecture]()
    objective = build_objective(config, architecture, tokenizer)
    nothing = np.zeros(0, np.int32)
    window = Window(np.full(objective.window_length, tokenizer.eod_id, np.int32), document_starts=nothing)
    example = objective(window, Draws(0))[0]
    return PromptRows(
        architecture=architecture,
        rules=replace(row_rules(config, tokenizer), eod_mask_loss=False),
        reads_running_text=isinstance(example, RunningText),
        ends_inputs=objective.ends_inputs,
    )


def build_loaders(config: RunConfig, tokenizer: Tokenizer, grid: Grid, device: Device) -> dict[str, Loader]:
    """{"train": ..., "valid": ...}: loaders of this rank's micro-batches, for the splits that have text."""
    geometry = BatchGeometry(
        micro_batch_size=config.batch.micro_batch_size,
        data_parallel_size=grid.data_size,
        data_parallel_rank=grid.data_rank,
    )
    # Prompts have few targets. Of other rows all positions count, as their FLOPs do. See `at_head_positions`.
    head_at_targets = OBJECTIVES[config.objective].reads_pairs and not config.layout.sequence_parallel
    splits = ("train", "valid") if config.logging.eval_iters else ("train",)
    return {
        split: Loader(
            rows,
            geometry=geometry,
            num_workers=config.data.num_workers,
            put=device.put,
            head_at_targets=head_at_targets,
        )
        for split, rows in build_rows(config, tokenizer, splits).items()
    }
