"""The command that tells what a run would take before there are devices for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError
from megatron.basics.option import Options
from megatron.cli import run_config
from megatron.cli.chosen_cell import config_of_cell, illegal_objective, settings_of_record
from megatron.cli.cross_checks import (
    architecture_reads_settings,
    objective_reads_settings,
    optimizer_fits_layout,
    positions_can_restart,
    positions_cover_sequence,
)
from megatron.cli.flags import parse
from megatron.cli.plan_options import PlanOptions
from megatron.cli.run_config import RunConfig
from megatron.records.special_tokens import NUM_SENTINELS, SpecialTokens

if TYPE_CHECKING:
    from megatron.cli.plan_search import Devices
    from megatron.tokenization.tokenizer import Tokenizer

DESCRIPTION = (
    "List every layout of a run on a number of devices, best first by estimated time: memory of a device by part, "
    "pipeline bubble, bytes sent, parameters and FLOPs. Takes the flags of the pretrain scripts as well; with a layout "
    "among them, e.g. --tensor-model-parallel-size 2, it shows that one in detail. With --load RUN flags default to "
    "what that run was given, but for layout and micro-batch. Needs no devices, data or tokenizer."
)
SECTIONS: dict[str, type[Options]] = {"plan": PlanOptions}
SECTIONS_OF_RUN = ("model", "objective_options", "data")  # what a plan takes of a recorded run as it is
MODEL_RULES = (
    architecture_reads_settings,
    objective_reads_settings,
    optimizer_fits_layout,
    positions_can_restart,
    positions_cover_sequence,
)
USUAL_PEAK_TFLOPS = 989.0
LAYOUT_SETTINGS = {
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "num_virtual_stages_per_pipeline_rank",
    "sequence_parallel",
}


@dataclass(frozen=True)
class NumberedVocabulary:
    """Stands in for a tokenizer where only the number of tokens matters: every kind of special token is there."""

    vocabulary_size: int
    pad_id: int = 0
    eod_id: int = 1

    @property
    def special(self) -> SpecialTokens:
        """As many sentinels as --add-special-tokens gives: what a run would be refused for is refused here."""
        last = self.vocabulary_size - 1
        return SpecialTokens(
            end=self.eod_id,
            begin=9,
            pad=self.pad_id,
            mask=2,
            mode_tokens=(3, 4, 5),
            fim_tokens=(6, 7, 8),
            sentinels=tuple(range(last, last - NUM_SENTINELS, -1)),
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises UserError."""
    given: set[str] = set()

    def defaults(values: Mapping[str, Any]) -> dict[str, Any]:
        given.update(values)
        return _settings_of_run(values)

    parsed = parse(
        sys.argv[1:] if argv is None else argv,
        {**SECTIONS, **run_config.SECTIONS},
        description=DESCRIPTION,
        rules=(_batch_given, _objective_known),
        defaults=defaults,
    )
    options: PlanOptions = parsed.pop("plan")
    config = config_of_cell(options.architecture, options.objective, parsed, MODEL_RULES)
    for line in _lines(config, options, given):
        print(line)


def _settings_of_run(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the record of --load says of model, rows, optimizer and the size of a step. Raises UserError."""
    if not given.get("load"):
        return {}
    config, tokenizer, settings = settings_of_record(given, SECTIONS_OF_RUN)
    settings |= {
        "vocab_size": tokenizer["vocabulary_size"],
        "global_batch_size": config.batch.global_batch_size,
        "optimizer": config.optimizer.optimizer,
    }
    if not given.keys() & {"bf16", "fp16"}:
        settings |= {"bf16": config.optimizer.bf16, "fp16": config.optimizer.fp16}
    return settings


def _batch_given(batch: Any) -> Iterator[str]:
    """Layouts are compared by a step of the same size."""
    if batch.global_batch_size is None:
        yield "--global-batch-size is missing; give the rows of a step, by which layouts are compared."


def _objective_known(plan: PlanOptions) -> Iterator[str]:
    """An objective for this architecture."""
    yield from illegal_objective(plan.architecture, plan.objective)


def _lines(config: RunConfig, options: PlanOptions, given: Collection[str]) -> Iterator[str]:
    from megatron.cli.figures import model_shape, training_size, visible_pairs  # --help does without numpy
    from megatron.cli.plan_report import as_json, describe_model, describe_plan, describe_plans
    from megatron.cli.plan_search import Impossible, Plan, layout_faults, nothing_fits, plan_of, search

    devices = _devices(config, options)
    pairs = visible_pairs(config, cast("Tokenizer", NumberedVocabulary(options.vocab_size)))
    shape = model_shape(config, options.vocab_size)
    is_one_layout = not LAYOUT_SETTINGS.isdisjoint(given)
    if is_one_layout:
        faults = [*layout_faults(config, options.devices)]
        if faults:
            raise UserError(*faults)
        found: list[Plan | Impossible] = [
            plan_of(training_size(config, options.vocab_size, options.devices), pairs, devices)
        ]
    else:
        found = [*search(config, options.vocab_size, pairs, devices, given=given)]
    plans = sorted((one for one in found if isinstance(one, Plan)), key=lambda plan: plan.time.total)
    impossible = [one for one in found if isinstance(one, Impossible)]
    if options.json:
        with atomic_writer(options.json, "w") as file:
            json.dump(as_json(shape, pairs, plans, impossible), file, indent=1)
    fitting = [plan for plan in plans if plan.why_not is None]
    if not fitting and not is_one_layout:
        raise nothing_fits(plans, impossible, devices)
    yield from describe_model(shape, pairs)
    if is_one_layout:
        yield from describe_plan(plans[0])
        if plans[0].why_not:
            yield f"It does not fit: it {plans[0].why_not}"
        return
    yield ""
    yield from describe_plans(fitting, options.top)


def _devices(config: RunConfig, options: PlanOptions) -> Devices:
    from megatron.cli.plan_search import Devices
    from megatron.loop.step_time import Machine

    peak = (config.logging.peak_tflops or USUAL_PEAK_TFLOPS) * 1e12
    machine = Machine(
        flops=peak * options.compute_efficiency,
        devices_per_node=options.devices_per_node,
        node_bandwidth=options.node_bandwidth * 1e9,
        network_bandwidth=options.network_bandwidth * 1e9,
    )
    return Devices(count=options.devices, memory=options.device_memory * 1e9, peak=peak, machine=machine)
