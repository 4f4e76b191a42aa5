"""What every command that uses a trained model begins with: its settings, its tokenizer and its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from megatron.basics.divisors import nearest_divisor
from megatron.basics.errors import UserError
from megatron.cli.cross_checks import (
    heads_fit_tensor_parallel,
    layers_fit_pipeline,
    widths_fit_tensor_parallel,
    world_fits_layout,
)
from megatron.cli.flags import broken_rules
from megatron.cli.run_config import RunConfig, world_size_from_environment
from megatron.evaluation.options import TrainedModelOptions
from megatron.layout.options import LayoutOptions
from megatron.modeling.options import ModelOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from megatron.checkpoint.contents import Contents
    from megatron.checkpoint.load import Loaded
    from megatron.device.device import Device
    from megatron.layout.grid import Grid
    from megatron.tokenization.tokenizer import Tokenizer

Chosen = TypeVar("Chosen", bound=TrainedModelOptions)


def run_folder_exists(trained_model: TrainedModelOptions) -> Iterator[str]:
    """There is a folder to load from."""
    if not Path(str(trained_model.load)).is_dir():
        yield f"--load {trained_model.load} is not a folder; check the path."


def pinned(trained: Chosen) -> Chosen:
    """The same with the checkpoint that is the newest one now as its iteration. Raises UserError for a damaged one.

    The run may be training on: what is checked, loaded and named in results has to be one checkpoint.
    """
    return replace(trained, load_iteration=_newest(trained)[0])


def read_record(trained: TrainedModelOptions) -> tuple[RunConfig, Tokenizer]:
    """Settings and tokenizer of the run, on the layout of this command. Raises UserError."""
    from megatron.tokenization.tokenizer import load_tokenizer

    folder = Path(str(trained.load))
    _, contents = _newest(trained)
    config = replace(RunConfig.from_dict(contents.run, source=str(folder)), layout=trained.layout)
    known = {
        "architecture": config.architecture,
        "model": config.model,
        "layout": config.layout,
        "world_size": world_size_from_environment(),
    }
    faults = [*broken_rules((world_fits_layout, layers_fit_pipeline, _shares_are_equal), known)]
    if faults:
        raise UserError(*faults)
    source = trained.tokenizer_model or contents.tokenizer["model"]
    tokenizer = load_tokenizer(contents.tokenizer["type"], source, config.data.add_special_tokens)
    if tokenizer.fingerprint != contents.tokenizer["fingerprint"]:
        raise UserError(f"--tokenizer-model {source} is not the one that {folder} was trained with; pass that one.")
    return config, tokenizer


def load_model(
    trained: TrainedModelOptions,
    config: RunConfig,
    tokenizer: Tokenizer,
    device: Device,
    grid: Grid,
    *,
    dtype: torch.dtype | None = None,
) -> tuple[list[nn.Module], Loaded]:
    """The chunks of this rank with the weights of a checkpoint, and which one that is. A collective.

    dtype: that of the run where None.
    """
    from megatron.checkpoint.load import load_newest
    from megatron.cli.training import speaker
    from megatron.cli.wire import attention_backend, model_recipe
    from megatron.loop.setup import build_chunks, compute_dtype

    _, attend = attention_backend(config, device)
    recipe = model_recipe(config, tokenizer.vocabulary_size)
    dtype = dtype or compute_dtype(config.optimizer)
    _, chunks = build_chunks(recipe, config.layout, grid, device, dtype, attend)
    say = speaker(grid)
    loaded = load_newest(Path(str(trained.load)), grid, chunks, None, iteration=trained.load_iteration, say=say)
    say(f"loaded {loaded.folder}")
    return chunks, loaded


def _newest(trained: TrainedModelOptions) -> tuple[int, Contents]:
    """Iteration of the checkpoint that is asked for, and what it says of itself."""
    from megatron.cli.origin import chosen_checkpoint

    iteration, _, contents = chosen_checkpoint(Path(str(trained.load)), trained.load_iteration)
    return iteration, contents


def _shares_are_equal(model: ModelOptions, layout: LayoutOptions) -> Iterator[str]:
    """Heads, feed-forward layer and vocabulary split evenly; the model is what it is, so the size has to change."""
    tensor = layout.tensor_model_parallel_size
    if any(heads_fit_tensor_parallel(model, layout)) or any(widths_fit_tensor_parallel(model, layout)):
        counts = (model.query_groups, model.ffn_size, model.make_vocab_size_divisible_by)
        yield (
            f"--tensor-model-parallel-size {tensor} does not divide this model ({model.num_attention_heads} heads, "
            f"{counts[0]} groups of keys, a feed-forward layer of {counts[1]}, a vocabulary padded to a multiple of "
            f"{counts[2]}); use {nearest_divisor(math.gcd(model.num_attention_heads, *counts), tensor)}."
        )
