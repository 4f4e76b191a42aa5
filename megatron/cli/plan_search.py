"""Every layout of a run on a number of devices, and why some cannot be."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from megatron.architectures.flops import VisiblePairs, flops_per_token
from megatron.basics.errors import UserError
from megatron.cli.cross_checks import (
    batches_fit_data_parallel,
    heads_fit_tensor_parallel,
    layers_fit_pipeline,
    layers_fit_virtual_stages,
    microbatches_fit_interleaving,
    recomputed_layers_fit_stage,
    sequence_fits_sequence_parallel,
    widths_fit_tensor_parallel,
    world_fits_layout,
)
from megatron.cli.figures import training_size
from megatron.cli.flags import broken_rules
from megatron.cli.run_config import RunConfig
from megatron.layout.options import LayoutOptions
from megatron.loop.memory_estimate import MemoryEstimate, estimate_memory
from megatron.loop.step_time import Machine, StepTime, estimate_step_time
from megatron.loop.training_size import TrainingSize

LAYOUT_RULES = (
    world_fits_layout,
    layers_fit_pipeline,
    layers_fit_virtual_stages,
    recomputed_layers_fit_stage,
    heads_fit_tensor_parallel,
    widths_fit_tensor_parallel,
    sequence_fits_sequence_parallel,
    batches_fit_data_parallel,
    microbatches_fit_interleaving,
)
MOST_CHUNKS, LARGEST_MICRO_BATCH = 8, 64


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One layout with what it takes. why_not: a sentence where it does not fit the devices."""

    size: TrainingSize
    memory: MemoryEstimate
    time: StepTime
    mfu: float
    why_not: str | None


@dataclass(frozen=True, kw_only=True)
class Impossible:
    """A layout that a rule forbids."""

    layout: LayoutOptions
    micro_batch_size: int
    why_not: str


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What a plan is made for. peak: FLOP/s of a device, of which `machine` reaches a share. memory: bytes of each."""

    count: int
    memory: float
    peak: float
    machine: Machine


def search(
    config: RunConfig, vocabulary_size: int, pairs: VisiblePairs, devices: Devices, *, given: Collection[str] = ()
) -> Iterator[Plan | Impossible]:
    """Every combination of sizes that divide the devices, those that cannot be among them.

    given: names of settings that a person chose; recompute_granularity and micro_batch_size then stay as in `config`.
    """
    base = training_size(config, vocabulary_size, devices.count)
    for candidate in _candidates(config, devices, given):
        fault = next(layout_faults(candidate, devices.count), None)
        if fault is None:
            size = dataclasses.replace(base, layout=candidate.layout, batch=candidate.batch)
            yield plan_of(size, pairs, devices)
        else:
            yield Impossible(layout=candidate.layout, micro_batch_size=candidate.batch.micro_batch_size, why_not=fault)


def plan_of(size: TrainingSize, pairs: VisiblePairs, devices: Devices) -> Plan:
    """The figures of one layout, which must be a legal one."""
    memory = estimate_memory(size)
    time = estimate_step_time(size, pairs, devices.machine)
    work = flops_per_token(size.shape, pairs) * size.shape.stream_length * size.global_batch_size
    why_not = None
    if memory.total > devices.memory:
        why_not = (
            f"needs {memory.total / 1e9:.1f} GB on a device, and --device-memory is {devices.memory / 1e9:g} GB; use "
            "more devices, a smaller --micro-batch-size or --recompute-granularity full."
        )
    mfu = work / (time.total * devices.count * devices.peak)
    return Plan(size=size, memory=memory, time=time, mfu=mfu, why_not=why_not)


def layout_faults(config: RunConfig, devices: int) -> Iterator[str]:
    """Sentences on why a layout cannot be."""
    known = {
        "architecture": config.architecture,
        "model": config.model,
        "layout": config.layout,
        "batch": config.batch,
        "data": config.data,
        "world_size": devices,
    }
    return broken_rules(LAYOUT_RULES, known)


def _candidates(config: RunConfig, devices: Devices, given: Collection[str]) -> Iterator[RunConfig]:
    """Combinations that the options of a layout allow by themselves."""
    tensor_sizes = [size for size in _divisors(devices.count) if size <= devices.machine.devices_per_node]
    recomputes = _recomputes(config, given)
    for tensor in tensor_sizes:
        for pipeline in _divisors(devices.count // tensor):
            for chunks in (None, *range(2, MOST_CHUNKS + 1)) if pipeline > 1 else (None,):
                for is_cut in (False, True) if tensor > 1 else (False,):
                    for recompute in recomputes:
                        layout = dataclasses.replace(
                            config.layout,
                            tensor_model_parallel_size=tensor,
                            pipeline_model_parallel_size=pipeline,
                            num_virtual_stages_per_pipeline_rank=chunks,
                            sequence_parallel=is_cut,
                            recompute_granularity=recompute,
                        )
                        if "micro_batch_size" in given:
                            yield dataclasses.replace(config, layout=layout)
                        else:
                            yield from _with_micro_batches(config, layout, devices.count)


def _recomputes(config: RunConfig, given: Collection[str]) -> tuple[str | None, ...]:
    if "recompute_granularity" in given:
        return (config.layout.recompute_granularity,)
    return (None, "selective", "full") if training_size(config, 256, 1).keeps_scores else (None, "full")


def _with_micro_batches(config: RunConfig, layout: LayoutOptions, devices: int) -> Iterator[RunConfig]:
    """Micro-batches of 1, 2, 4 ... rows, as far as the global batch has rows for every copy."""
    rows = (config.batch.global_batch_size or 1) * layout.model_parallel_size // devices
    size = 1
    while size <= min(max(rows, 1), LARGEST_MICRO_BATCH):
        yield dataclasses.replace(config, layout=layout, batch=dataclasses.replace(config.batch, micro_batch_size=size))
        size *= 2


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def nothing_fits(plans: list[Plan], impossible: list[Impossible], devices: Devices) -> UserError:
    """One sentence on why no layout is left."""
    if not plans:
        return UserError(f"no layout of {devices.count} devices is possible: {impossible[0].why_not}")
    least = min(plans, key=lambda plan: plan.memory.total)
    return UserError(
        f"no layout of --devices {devices.count} fits --device-memory {devices.memory / 1e9:g}: the smallest one needs "
        f"{least.memory.total / 1e9:.1f} GB a device; use more devices, a smaller model or a shorter --seq-length."
    )
