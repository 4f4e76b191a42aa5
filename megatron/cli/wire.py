"""Builds the parts of a run, each from its own section; the one place that plugs an objective into the loader."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from megatron.architectures.protocol import Architecture
from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.attention.registry import AttentionBackend, choose_backend
from megatron.basics.draws import Draws
from megatron.cli.run_config import RunConfig
from megatron.data.batch_positions import BatchGeometry
from megatron.data.loader import Loader
from megatron.data.sources import WindowRules, build_sources
from megatron.device.device import Device
from megatron.evaluation.prompt_rows import PromptRows
from megatron.layout.grid import Grid
from megatron.loop.setup import ModelRecipe
from megatron.objectives.protocol import Objective
from megatron.objectives.registry import OBJECTIVES
from megatron.records.example import RunningText
from megatron.records.window import Window
from megatron.tokenization.tokenizer import Tokenizer


def attention_backend(config: RunConfig, device: Device) -> tuple[str, AttentionBackend]:
    """The attention backend of a run, by name and as a function."""
    return choose_backend(
        config.model.attention_backend,
        is_cuda=device.is_cuda,
        is_causal=ARCHITECTURES[config.architecture].is_causal and not config.data.reset_attention_mask,
        has_bias=config.model.position_embedding_type in ("alibi", "relative"),
    )


def model_recipe(config: RunConfig, vocabulary_size: int) -> ModelRecipe:
    """What decides the weights of a fresh model."""
    lengths = (config.data.seq_length, config.data.decoder_seq_length or config.data.seq_length)
    return ModelRecipe(
        architecture=ARCHITECTURES[config.architecture](),
        model=config.model,
        vocabulary_size=vocabulary_size,
        max_positions=config.model.max_position_embeddings or max(lengths),
        seed=config.batch.seed,
        lengths=lengths,
    )


def row_rules(config: RunConfig, tokenizer: Tokenizer) -> RowRules:
    """How rows are cut. T5's decoder starts from the padding token."""
    return RowRules(
        seq_length=config.data.seq_length,
        decoder_seq_length=config.data.decoder_seq_length or config.data.seq_length,
        end_token=tokenizer.eod_id,
        start_token=tokenizer.pad_id,
        pad_token=tokenizer.pad_id,
        begins_with_start_token=config.data.begin_with_start_token,
        reset_attention_mask=config.data.reset_attention_mask,
        reset_position_ids=config.data.reset_position_ids,
        eod_mask_loss=config.data.eod_mask_loss,
    )


def build_objective(config: RunConfig, architecture: Architecture, tokenizer: Tokenizer) -> Objective:
    """The objective for the rows of a run. Raises UserError when rows or vocabulary do not do."""
    objective: Objective = OBJECTIVES[config.objective].build(
        config.objective_options, tokenizer.special, architecture.room(row_rules(config, tokenizer))
    )
    return objective


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
        ends_inputs=example.is_complete,
    )


def build_loaders(
    config: RunConfig,
    architecture: Architecture,
    tokenizer: Tokenizer,
    grid: Grid,
    device: Device,
) -> dict[str, Loader]:
    """{"train": ..., "valid": ...}: loaders of this rank's micro-batches, for the splits that have text."""
    rules = row_rules(config, tokenizer)
    objective = build_objective(config, architecture, tokenizer)
    sources = build_sources(
        config.data,
        WindowRules(window_length=objective.window_length, stride=objective.stride, seed=config.batch.seed),
        vocabulary_size=tokenizer.vocabulary_size,
        tokenizer_fingerprint=tokenizer.fingerprint,
        splits=("train", "valid") if config.logging.eval_iters else ("train",),
    )
    geometry = BatchGeometry(
        micro_batch_size=config.batch.micro_batch_size,
        data_parallel_size=grid.data_size,
        data_parallel_rank=grid.data_rank,
    )
    return {
        split: Loader(
            source,
            objective,
            partial(architecture.arrange, rules=rules),
            seed=config.batch.seed,
            geometry=geometry,
            parts_documents=config.data.reset_attention_mask and not objective.marks_documents,
            num_workers=config.data.num_workers,
            put=device.put,
        )
        for split, source in sources.items()
        if source is not None
    }
