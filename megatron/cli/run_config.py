"""All settings of a run as one frozen record, written beside its checkpoints and read again by later commands."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from megatron.basics.errors import UserError, nearest, nearest_name
from megatron.basics.option import Options, option
from megatron.checkpoint.options import CheckpointOptions
from megatron.cli.cross_checks import SETTING_RULES, common_depth_counts
from megatron.cli.file_checks import FILE_RULES
from megatron.cli.flags import parse
from megatron.cli.values import WrongValue, field_types, from_native
from megatron.data.options import DataOptions
from megatron.layout.options import LayoutOptions
from megatron.loop.options import BatchOptions, LoggingOptions, OptimizerOptions
from megatron.modeling.options import ModelOptions
from megatron.objectives.options import ObjectiveOptions

SECTIONS: dict[str, type[Options]] = {
    "model": ModelOptions,
    "layout": LayoutOptions,
    "batch": BatchOptions,
    "optimizer": OptimizerOptions,
    "objective_options": ObjectiveOptions,
    "data": DataOptions,
    "checkpoint": CheckpointOptions,
    "logging": LoggingOptions,
}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings of a run. Nothing below `cli/` sees it: every builder is handed its own section."""

    architecture: str
    objective: str
    model: ModelOptions
    layout: LayoutOptions
    batch: BatchOptions
    optimizer: OptimizerOptions
    objective_options: ObjectiveOptions
    data: DataOptions
    checkpoint: CheckpointOptions
    logging: LoggingOptions

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON: sections by name, fields by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(
        cls, content: Mapping[str, Any], source: str = "run.json", warn: Callable[[str], None] | None = None
    ) -> RunConfig:
        """The record that `as_dict` wrote. Raises UserError for anything that this version cannot honour.

        A setting that the file lacks was unknown to the version that wrote it: it takes its default, and `warn`
        (standard error by default) is told so in one sentence.
        """
        faults: list[str] = []
        missing: list[str] = []
        built: dict[str, Any] = {}
        for name in ("architecture", "objective"):
            built[name] = content.get(name)
            if not isinstance(built[name], str):
                faults.append(f"{source} does not say its {name}; it is not the record of a run.")
        for name in sorted(content.keys() - SECTIONS.keys() - built.keys()):
            faults.append(
                f"{source}: {name} is not known to this version;{nearest(name, SECTIONS) or ' use a newer one.'}"
            )
        for name, options_class in SECTIONS.items():
            section = content.get(name, {})
            if not isinstance(section, Mapping):
                faults.append(f"{source}: {name} must hold settings by name.")
                continue
            missing += [f"{name}.{field}" for field in field_types(options_class) if field not in section]
            built[name], section_faults = _read_section(options_class, section, f"{source}: {name}")
            faults += section_faults
        if faults:
            raise UserError(*faults)
        if missing:
            (warn or _warn)(
                f"{source} was written by another version; these take their defaults: {', '.join(missing)}."
            )
        return cls(**built)


def parse_pretrain(
    argv: Sequence[str], *, architecture: str, default_objective: str, legal_objectives: Sequence[str]
) -> RunConfig:
    """The settings of a pretraining run from its command line. Raises one UserError with every fault."""
    objective_section = _objective_section(architecture, default_objective, tuple(legal_objectives))
    parsed = parse(
        argv,
        {"objective": objective_section, **SECTIONS},
        description=f"Pretrain: {architecture.replace('_', ' ')}.",
        rules=(*SETTING_RULES, common_depth_counts, *FILE_RULES),
        facts={"world_size": world_size_from_environment(), "architecture": architecture},
    )
    objective = parsed.pop("objective").objective
    return RunConfig(architecture=architecture, objective=objective, **parsed)


def world_size_from_environment() -> int:
    """Processes of this run, as torchrun tells them; 1 without a launcher."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"WORLD_SIZE={text} in the environment is not a number of processes; start with torchrun.")
    return int(text)


def _objective_section(architecture: str, default: str, legal: tuple[str, ...]) -> type[Options]:
    """`--objective` for one architecture: which values are legal is known only here."""

    @dataclass(frozen=True, kw_only=True)
    class ObjectiveOptions(Options):
        group: ClassVar[str] = "objective"

        objective: str = option(default, f"What the model learns to predict: {', '.join(legal)}.", metavar="NAME")

        def rules(self) -> Iterator[str]:
            if self.objective not in legal:
                guess = nearest(self.objective, legal)
                takes = f"{guess} It takes" if guess else " it takes"
                yield f"--objective {self.objective} is not one of {architecture};{takes}: {', '.join(legal)}."

    return ObjectiveOptions


def _read_section(
    options_class: type[Options], section: Mapping[str, Any], where: str
) -> tuple[Options | None, list[str]]:
    types = field_types(options_class)
    values: dict[str, Any] = {}
    faults: list[str] = []
    for key, value in section.items():
        if key not in types:
            guess = nearest_name(key, types)
            hint = f"did you mean {guess}?" if guess else "it was written by a version that has more settings."
            faults.append(f"{where}.{key} is not known to this version; {hint}")
            continue
        try:
            values[key] = from_native(types[key], value)
        except WrongValue as fault:
            faults.append(f"{where}.{key} {fault}.")
    if faults:
        return None, faults
    try:
        return options_class(**values), []
    except UserError as error:
        return None, [f"{where}: {fault}" for fault in error.faults]


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr, flush=True)
