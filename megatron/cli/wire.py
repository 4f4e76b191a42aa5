"""Builds the parts of a run, each from its own section; the one place that plugs an objective into the loader."""

from __future__ import annotations

from functools import partial

from megatron.architectures.protocol import Architecture
from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.attention.registry import AttentionBackend, choose_backend
from megatron.cli.run_config import RunConfig
from megatron.data.batch_positions import BatchGeometry
from megatron.data.loader import Loader
from megatron.data.sources import WindowRules, build_sources
from megatron.device.device import Device
from megatron.layout.grid import Grid
from megatron.loop.setup import ModelRecipe
from megatron.objectives.protocol import Objective
from megatron.tokenization.tokenizer import Tokenizer


def attention_backend(config: RunConfig, device: Device) -> tuple[str, AttentionBackend]:
    """The attention backend of a run, by name and as a function."""
    return choose_backend(
        config.model.attention_backend,
        is_cuda=device.is_cuda,
        is_causal=config.architecture == "causal_decoder" and not config.data.reset_attention_mask,
        has_bias=config.model.position_embedding_type in ("alibi", "relative"),
    )


def model_recipe(config: RunConfig, vocabulary_size: int) -> ModelRecipe:
    """What decides the weights of a fresh model."""
    return ModelRecipe(
        architecture=ARCHITECTURES[config.architecture](),
        model=config.model,
        vocabulary_size=vocabulary_size,
        max_positions=config.model.max_position_embeddings or config.data.seq_length,
        seed=config.batch.seed,
    )


def build_loaders(
    config: RunConfig,
    objective: Objective,
    architecture: Architecture,
    tokenizer: Tokenizer,
    grid: Grid,
    device: Device,
) -> dict[str, Loader]:
    """{"train": ..., "valid": ...}: loaders of this rank's micro-batches, for the splits that have text."""
    length = config.data.seq_length
    sources = build_sources(
        config.data,
        WindowRules(
            window_length=objective.window_length(length), stride=objective.stride(length), seed=config.batch.seed
        ),
        vocabulary_size=tokenizer.vocabulary_size,
        tokenizer_fingerprint=tokenizer.fingerprint,
        splits=("train", "valid") if config.logging.eval_iters else ("train",),
    )
    rules = RowRules(
        seq_length=length,
        end_of_document=tokenizer.eod_id,
        reset_attention_mask=config.data.reset_attention_mask,
        reset_position_ids=config.data.reset_position_ids,
        eod_mask_loss=config.data.eod_mask_loss,
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
            num_workers=config.data.num_workers,
            put=device.put,
        )
        for split, source in sources.items()
        if source is not None
    }
