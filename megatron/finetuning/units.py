"""What there is to prepare: splits of data sets for training and validation, and held-out tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from megatron.basics.errors import UserError
from megatron.finetuning.options import TaskOptions
from megatron.finetuning.template_shares import number_of_prompts
from megatron.prompting.data_sets import DataMissing, DataSets
from megatron.prompting.mixture import Mixture, read_mixture
from megatron.prompting.split_files import SplitFile
from megatron.prompting.template import Template
from megatron.prompting.template_files import data_sets_of, read_templates

TRAIN, VALIDATION, HELD_OUT = "train", "validation", "held_out"  # also the folders of the output


@dataclass(frozen=True)
class Unit:
    """A split of a data set with its templates. name: of the data set, or of the held-out task.

    cap: see `template_cap`; None where every example goes through every template. published: how many examples the
    split has elsewhere, where that is known.
    """

    role: str
    name: str
    data_set: str
    split: str
    templates: tuple[Template, ...]
    source: SplitFile
    cap: int | None = None
    published: int | None = None

    @cached_property
    def examples(self) -> int:
        """In the split. Reads a file of lines once."""
        return self.source.count()

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"{self.role.replace('_', '-')} {self.name}"

    def prefix(self, folder: Path) -> Path:
        """What the names of its files begin with."""
        return folder / self.role / self.name


@dataclass
class Units:
    """What is at hand, and what is not, each with the reason: by name of data set or task."""

    mixture: Mixture
    found: list[Unit] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    without_validation: dict[str, str] = field(default_factory=dict)
    missing_held_out: dict[str, str] = field(default_factory=dict)

    def of(self, *roles: str) -> list[Unit]:
        """Those of some roles, in the order of the mixture."""
        return [unit for unit in self.found if unit.role in roles]


def find_units(options: TaskOptions) -> Units:
    """Look for everything that the mixture names.

    Raises UserError with every fault: data sets that are not in the mixture, data sets without templates, templates
    that are broken, data that was asked for by name and is not there, and where nothing to train on is at hand.
    """
    folder = Path(str(options.templates))
    known = data_sets_of(folder)
    units = Units(_chosen(read_mixture(str(options.mixture)), options))
    units.mixture.check_data_sets(known, str(folder))
    shelf = DataSets(None if options.data_dir is None else Path(options.data_dir))
    _find_training(units, options, folder, shelf)
    faults = [units.missing[name] for name in options.data_sets if name in units.missing]
    if faults:
        raise UserError(*faults)
    if not units.of(TRAIN):
        raise UserError(
            f"nothing of the mixture {units.mixture.name} is at hand, so nothing was written: "
            + " ".join([*units.missing.values()][:3])
        )
    _find_held_out(units, folder, known, shelf)
    return units


def _chosen(mixture: Mixture, options: TaskOptions) -> Mixture:
    """The mixture with --data-sets and --cap."""
    if options.data_sets:
        mixture = replace(mixture, data_sets=tuple(mixture.find(name) for name in options.data_sets))
    return mixture if options.cap is None else replace(mixture, cap=options.cap)


def _find_training(units: Units, options: TaskOptions, folder: Path, shelf: DataSets) -> None:
    for entry in units.mixture.data_sets:
        name = entry.data_set
        templates = entry.chosen(read_templates(folder, name))
        if not templates:
            raise UserError(f"{name} has no template of its original task; choose others in the mixture file.")
        try:
            source = shelf.find(entry.path, entry.configuration, options.split)
            unit = Unit(TRAIN, name, name, options.split, templates, source, units.mixture.cap, entry.examples)
            _require_examples(unit)
        except DataMissing as missing:
            units.missing[name] = str(missing)
            continue
        try:
            number_of_prompts(unit.examples, len(templates), unit.cap)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        units.found.append(unit)
        try:
            source = shelf.find(entry.path, entry.configuration, options.validation_split)
            unit = Unit(VALIDATION, name, name, options.validation_split, templates, source)
            _require_examples(unit)
        except DataMissing as missing:
            units.without_validation[name] = str(missing)
        else:
            units.found.append(unit)


def _find_held_out(units: Units, folder: Path, known: Sequence[str], shelf: DataSets) -> None:
    for task in units.mixture.held_out:
        if task.data_set not in known:
            units.missing_held_out[task.name] = f"{folder} has no templates of {task.data_set}."
            continue
        try:
            source = shelf.find(task.path, task.configuration, task.split)
            templates = task.chosen(read_templates(folder, task.data_set))
            unit = Unit(HELD_OUT, task.name, task.data_set, task.split, templates, source)
            _require_examples(unit)
        except DataMissing as missing:
            units.missing_held_out[task.name] = str(missing)
        else:
            units.found.append(unit)


def _require_examples(unit: Unit) -> None:
    if not unit.examples:
        raise DataMissing(f"{unit.source.path} holds no example of {unit.data_set}.")
