"""Rules that join two sections of options: one function per rule, one sentence per fault, with a legal value near by.

A rule's parameters are the names of what it needs (see `flags.broken_rules`). Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from megatron.architectures.registry import ARCHITECTURES
from megatron.basics.divisors import nearest_divisor
from megatron.checkpoint.options import CheckpointOptions
from megatron.data.options import DataOptions
from megatron.layout.options import LayoutOptions
from megatron.loop.options import BatchOptions, LoggingOptions, OptimizerOptions
from megatron.modeling.options import ModelOptions
from megatron.objectives.options import ObjectiveOptions
from megatron.objectives.registry import OBJECTIVES


def layers_fit_pipeline(architecture: str, model: ModelOptions, layout: LayoutOptions) -> Iterator[str]:
    """Every stage gets whole layers; the same number wherever no other number is asked for or they are balanced."""
    stages = layout.pipeline_model_parallel_size
    if ARCHITECTURES[architecture].balances_stages:
        chunks = stages * (layout.num_virtual_stages_per_pipeline_rank or 1)
        layers = model.encoder_layers + model.decoder_layers
        if chunks > layers:
            virtual = " x --num-virtual-stages-per-pipeline-rank" if chunks > stages else ""
            yield (
                f"--pipeline-model-parallel-size{virtual} cuts {layers} layers of encoder and decoder into {chunks} "
                f"parts; use {layers} parts or fewer."
            )
        return
    first, last = layout.decoder_first_pipeline_num_layers, layout.decoder_last_pipeline_num_layers
    given = (first or 0) + (last or 0)
    even_stages = stages - (first is not None) - (last is not None)
    rest = model.num_layers - given
    if given and (rest != 0 if even_stages == 0 else rest < even_stages or rest % even_stages):
        yield (
            f"--num-layers {model.num_layers} leaves {rest} layers for the {even_stages} stages between the first and "
            f"last with {first or 'no'} and {last or 'no'} layers given; "
            f"use --num-layers {given + max(1, round(rest / max(even_stages, 1))) * even_stages}."
        )
    elif not given and model.num_layers % stages:
        yield (
            f"--pipeline-model-parallel-size {stages} cannot split {model.num_layers} layers evenly; use "
            f"{nearest_divisor(model.num_layers, stages)}, or set --decoder-first-pipeline-num-layers."
        )


def layers_fit_virtual_stages(architecture: str, model: ModelOptions, layout: LayoutOptions) -> Iterator[str]:
    """The layers of each pipeline rank split evenly into its chunks, where they are not balanced."""
    chunks = layout.num_virtual_stages_per_pipeline_rank
    if chunks is None or ARCHITECTURES[architecture].balances_stages:
        return
    if any(layers_fit_pipeline(architecture, model, layout)):
        return
    counts = _layers_of_stages(model, layout)
    common = math.gcd(*counts)
    if common % chunks:
        legal = nearest_divisor(common, chunks)
        yield (
            f"--num-virtual-stages-per-pipeline-rank {chunks} cannot split the {_distinct(counts)} layers of a "
            f"pipeline rank evenly; {f'use {legal}' if legal > 1 else 'leave it out'}."
        )


def recomputed_layers_fit_stage(architecture: str, model: ModelOptions, layout: LayoutOptions) -> Iterator[str]:
    """Full recompute works in units of layers that lie on one stage."""
    if layout.recompute_granularity != "full" or any(layers_fit_pipeline(architecture, model, layout)):
        return
    if ARCHITECTURES[architecture].balances_stages:
        if layout.recompute_method == "uniform" and layout.recompute_num_layers > 1:
            yield (
                f"--recompute-num-layers {layout.recompute_num_layers} needs stages of equal size, and those of "
                f"{architecture} are balanced by cost; use 1, or --recompute-method block."
            )
        return
    chunks = layout.num_virtual_stages_per_pipeline_rank or 1
    held = [count // chunks for count in _layers_of_stages(model, layout)]
    wish = layout.recompute_num_layers
    if layout.recompute_method == "block" and wish > min(held):
        yield f"--recompute-num-layers {wish} is more than the {min(held)} layers of a stage; use {min(held)} or less."
    if layout.recompute_method == "uniform" and any(count % wish for count in held if count):
        yield (
            f"--recompute-num-layers {wish} does not divide the {_distinct(held)} layers of a stage; use "
            f"{nearest_divisor(math.gcd(*held), wish)}."
        )


def heads_fit_tensor_parallel(model: ModelOptions, layout: LayoutOptions) -> Iterator[str]:
    """Each tensor rank holds whole query heads, and the key and value heads that they share."""
    tensor, heads, groups = layout.tensor_model_parallel_size, model.num_attention_heads, model.query_groups
    if heads % tensor:
        yield (
            f"--num-attention-heads {heads} cannot be split over --tensor-model-parallel-size {tensor}; use a size of "
            f"{nearest_divisor(heads, tensor)}."
        )
    elif groups % tensor:
        yield (
            f"--num-query-groups {groups} cannot be split over --tensor-model-parallel-size {tensor}; use a size of "
            f"{nearest_divisor(groups, tensor)}, or {-(-groups // tensor) * tensor} groups."
        )


def widths_fit_tensor_parallel(model: ModelOptions, layout: LayoutOptions) -> Iterator[str]:
    """Feed-forward layer, heads' width and vocabulary rows split evenly over the tensor ranks."""
    tensor = layout.tensor_model_parallel_size
    if model.ffn_size % tensor:
        yield (
            f"--ffn-hidden-size {model.ffn_size} cannot be split over --tensor-model-parallel-size {tensor}; use "
            f"{-(-model.ffn_size // tensor) * tensor}."
        )
    if model.make_vocab_size_divisible_by % tensor:
        yield (
            f"--make-vocab-size-divisible-by {model.make_vocab_size_divisible_by} is not a multiple of "
            f"--tensor-model-parallel-size {tensor}; use {math.lcm(model.make_vocab_size_divisible_by, tensor)}."
        )


def sequence_fits_sequence_parallel(data: DataOptions, layout: LayoutOptions) -> Iterator[str]:
    """Under sequence parallelism each tensor rank holds the same number of positions."""
    tensor = layout.tensor_model_parallel_size
    for flag, length in (("--seq-length", data.seq_length), ("--decoder-seq-length", data.decoder_seq_length)):
        if layout.sequence_parallel and length is not None and length % tensor:
            yield (
                f"{flag} {length} cannot be split over --tensor-model-parallel-size {tensor} by --sequence-parallel; "
                f"use {max(length // tensor, 1) * tensor}."
            )


def positions_cover_sequence(model: ModelOptions, data: DataOptions) -> Iterator[str]:
    """The model has a position for every token of a row."""
    rows = model.max_position_embeddings
    for flag, length in (("--seq-length", data.seq_length), ("--decoder-seq-length", data.decoder_seq_length)):
        if rows is not None and length is not None and rows < length:
            yield f"--max-position-embeddings {rows} is less than {flag} {length}; use {length}."


def positions_can_restart(model: ModelOptions, data: DataOptions) -> Iterator[str]:
    """Only these kinds of positions are numbers that a document could restart."""
    kind = model.position_embedding_type
    if data.reset_position_ids and kind not in ("learned_absolute", "rope"):
        yield f"--reset-position-ids has no effect with --position-embedding-type {kind}; leave it out."


def world_fits_layout(layout: LayoutOptions, world_size: int) -> Iterator[str]:
    """The processes make a whole number of copies of the model."""
    if world_size % layout.model_parallel_size:
        copies = max(1, round(world_size / layout.model_parallel_size))
        yield (
            f"a world of {world_size} cannot hold --tensor-model-parallel-size {layout.tensor_model_parallel_size} x "
            f"--pipeline-model-parallel-size {layout.pipeline_model_parallel_size}; start a multiple of "
            f"{layout.model_parallel_size} processes, e.g. {copies * layout.model_parallel_size}."
        )


def batches_fit_data_parallel(batch: BatchOptions, layout: LayoutOptions, world_size: int) -> Iterator[str]:
    """Every global batch, those of the ramp included, is a whole number of micro-batches on every rank."""
    if world_size % layout.model_parallel_size:
        return
    copies = world_size // layout.model_parallel_size
    unit = batch.micro_batch_size * copies
    size = batch.global_batch_size
    if size is not None and size % unit:
        yield (
            f"--global-batch-size {size} is not divisible by --micro-batch-size {batch.micro_batch_size} x {copies} "
            f"data-parallel ranks; use {max(1, round(size / unit)) * unit}."
        )
    elif batch.rampup_batch_size:
        start, increment, _ = batch.rampup_batch_size
        if start % unit or increment % unit:
            yield (
                f"--rampup-batch-size {start} {increment} is not made of multiples of --micro-batch-size "
                f"{batch.micro_batch_size} x {copies} data-parallel ranks; use multiples of {unit}."
            )


def microbatches_fit_interleaving(batch: BatchOptions, layout: LayoutOptions, world_size: int) -> Iterator[str]:
    """The interleaved schedule walks through micro-batches in groups as large as the pipeline."""
    if layout.num_virtual_stages_per_pipeline_rank is None or any(batches_fit_data_parallel(batch, layout, world_size)):
        return
    stages = layout.pipeline_model_parallel_size
    unit = batch.micro_batch_size * (world_size // layout.model_parallel_size)
    sizes = {batch.global_batch_size or unit, *batch.rampup_batch_size[:2]}
    if unit and any(size // unit % stages for size in sizes):
        wish = max(1, round((batch.global_batch_size or unit) / (unit * stages))) * unit * stages
        yield (
            f"--num-virtual-stages-per-pipeline-rank needs a number of micro-batches that is a multiple of "
            f"--pipeline-model-parallel-size {stages}; use --global-batch-size {wish}"
            f"{f' and a ramp of multiples of {unit * stages}' if batch.rampup_batch_size else ''}."
        )


def schedule_fits_run(optimizer: OptimizerOptions, batch: BatchOptions) -> Iterator[str]:
    """Warm-up ends before the decay does, and a WSD decay lies between them."""
    if optimizer.lr_decay_style == "constant":
        return
    end = optimizer.lr_decay_iters or batch.train_iters
    flag = "--lr-decay-iters" if optimizer.lr_decay_iters else "--train-iters"
    warmup, decay = optimizer.lr_warmup_iters, optimizer.lr_wsd_decay_iters
    if warmup >= end:
        yield f"--lr-warmup-iters {warmup} does not end before {flag} {end}; use {end - 1} or less."
    elif decay is not None and decay > end - warmup:
        yield (
            f"--lr-wsd-decay-iters {decay} does not fit between --lr-warmup-iters {warmup} and {flag} {end}; use "
            f"{end - warmup} or less."
        )


def optimizer_fits_layout(optimizer: OptimizerOptions, layout: LayoutOptions) -> Iterator[str]:
    """Only weights that data-parallel ranks have stepped apart need to be gathered."""
    if not optimizer.shards_state:
        yield from layout.without_effect(("overlap_param_gather",), f"with --optimizer {optimizer.optimizer}")


def objective_reads_settings(objective: Any, objective_options: ObjectiveOptions, data: DataOptions) -> Iterator[str]:
    """Settings of other objectives count for nothing; complete examples have no documents inside."""
    name = objective.objective
    if name not in OBJECTIVES:
        return
    chosen = OBJECTIVES[name]
    others = vars(objective_options).keys() - set(chosen.settings)
    yield from objective_options.without_effect(sorted(others), f"with --objective {name}")
    if chosen.is_complete:
        yield from data.without_effect(
            ("reset_attention_mask", "reset_position_ids", "eod_mask_loss"), f"with --objective {name}"
        )
    if chosen.reads_pairs:
        yield from data.without_effect(("pack_documents",), f"with --objective {name}, whose examples always are")


def architecture_reads_settings(
    architecture: str, model: ModelOptions, layout: LayoutOptions, data: DataOptions
) -> Iterator[str]:
    """Settings of other architectures count for nothing."""
    ignored = ARCHITECTURES[architecture].ignores
    for section, options in (("model", model), ("layout", layout), ("data", data)):
        yield from options.without_effect(ignored.get(section, ()), f"with the architecture {architecture}")


def common_depth_counts(architecture: str, model: ModelOptions) -> Iterator[str]:
    """Two depths of their own leave the one that both stacks share without use.

    Not one of SETTING_RULES: where settings are those of another run, its depth is no fault of the command line.
    """
    if "encoder_num_layers" in ARCHITECTURES[architecture].ignores.get("model", ()):
        return
    if model.encoder_num_layers and model.decoder_num_layers:
        yield from model.without_effect(("num_layers",), "with --encoder-num-layers and --decoder-num-layers")


def validation_has_data(data: DataOptions, logging: LoggingOptions) -> Iterator[str]:
    """Training, and validation where it is asked for, have documents to read."""
    if logging.eval_iters == 0:
        if logging.eval_interval is not None:
            yield f"--eval-interval {logging.eval_interval} needs --eval-iters 1 or more."
    elif data.train_data_path and not data.valid_data_path:
        yield f"--eval-iters {logging.eval_iters} needs --valid-data-path; add it, or set --eval-iters 0."
    elif data.data_path and data.split_weights[1] == 0:
        yield f"--split {data.split} leaves nothing to validate on; use e.g. 969,30,1, or --eval-iters 0."
    if data.data_path and data.split_weights[0] == 0:
        yield f"--split {data.split} leaves nothing for training; begin it with a share above 0, e.g. 969,30,1."


def profile_fits_run(logging: LoggingOptions, batch: BatchOptions, checkpoint: CheckpointOptions) -> Iterator[str]:
    """A profile has steps to look at and a folder to go to."""
    if not logging.profile_steps:
        return
    if not checkpoint.save:
        yield "--profile-steps needs --save, the folder that the trace is written to."
    if logging.profile_steps[1] > batch.train_iters:
        yield (
            f"--profile-steps {logging.profile_steps[0]} {logging.profile_steps[1]} goes beyond --train-iters "
            f"{batch.train_iters}; use {batch.train_iters} or less."
        )


def _layers_of_stages(model: ModelOptions, layout: LayoutOptions) -> list[int]:
    """The numbers of layers that occur on a pipeline rank, for settings that `layers_fit_pipeline` finds sound."""
    ends = [layout.decoder_first_pipeline_num_layers, layout.decoder_last_pipeline_num_layers]
    given = [count for count in ends if count is not None]
    even_stages = layout.pipeline_model_parallel_size - len(given)
    return [*given, (model.num_layers - sum(given)) // even_stages] if even_stages else given


def _distinct(counts: list[int]) -> str:
    return " and ".join(str(count) for count in sorted(set(counts)))


SETTING_RULES = (
    layers_fit_pipeline,
    layers_fit_virtual_stages,
    recomputed_layers_fit_stage,
    heads_fit_tensor_parallel,
    widths_fit_tensor_parallel,
    sequence_fits_sequence_parallel,
    positions_cover_sequence,
    positions_can_restart,
    world_fits_layout,
    batches_fit_data_parallel,
    microbatches_fit_interleaving,
    schedule_fits_run,
    optimizer_fits_layout,
    objective_reads_settings,
    architecture_reads_settings,
    validation_has_data,
    profile_fits_run,
)
