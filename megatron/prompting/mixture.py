"""Which data sets are trained on and how much of each, and which tasks are kept for evaluation: files of mixtures/.

    held_out: t0_held_out             a file of held-out tasks; none of their data sets may be trained on, nor under
                                      another name (same_examples.py). t0_held_out if left out; `none` holds out nothing
    releases: [hellaswag]             held-out data sets that this mixture trains on all the same, and says so
    extends: t0                       data sets, held-out tasks and releases of another mixture
    cap: 500000                       examples of a data set beyond which its templates share (see `template_cap`)
    data_sets:
      - {path: glue, configuration: mrpc, examples: 3668, templates: original}

A file of held-out tasks has `tasks`, see HeldOutTask. Names without ".yaml" are files of this package; others are
paths, which count from the folder of the file that names them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from megatron.basics.errors import UserError, nearest
from megatron.prompting.hub_names import RULE, is_name, is_path
from megatron.prompting.mixture_file import (
    content_of,
    hub_name,
    identity_of,
    is_file,
    list_of,
    named_in,
    refuse_unknown,
)
from megatron.prompting.same_examples import share_examples
from megatron.prompting.template import Template, short_repr

HELD_OUT_OF_T0 = "t0_held_out"  # what a mixture holds out that does not say anything else
NONE = "none"
CAP = 500_000  # T0's MAX_EXAMPLES_PER_DATASET
ALL, ORIGINAL = "all", "original"
# Of an accuracy, with so few digits that a number of them cannot be endless work: `1/3`, `0.25`, `1`.
_SHARE = re.compile(r"[0-9]{1,9}/0*[1-9][0-9]{0,8}|[0-9]?\.[0-9]{1,20}|[0-9]")


@dataclass(frozen=True)
class MixedDataSet:
    """One data set of a mixture.

    `path` and `configuration` are its name on the Hugging Face hub; `examples` the size of its training split as
    published, where known, to compare with what is at hand; `templates` is "all", "original" (those that ask for the
    original task) or the names of some.
    """

    path: str
    configuration: str | None
    examples: int | None
    templates: str | tuple[str, ...]

    @property
    def data_set(self) -> str:
        """Its name among templates: `glue/mrpc`, or `imdb` for one without configurations."""
        return self.path if self.configuration is None else f"{self.path}/{self.configuration}"

    def chosen(self, templates: Sequence[Template]) -> tuple[Template, ...]:
        """The templates to use out of those of the data set; raises UserError for a name that none of them has."""
        if self.templates == ALL:
            return tuple(templates)
        if self.templates == ORIGINAL:
            return tuple(template for template in templates if template.is_original_task)
        names = {template.name: template for template in templates}
        for name in self.templates:
            if name not in names:
                raise UserError(
                    f"{self.data_set} has no template {name!r};{nearest(name, names)} Mend the mixture file."
                )
        return tuple(names[name] for name in self.templates)


@dataclass(frozen=True)
class HeldOutTask:
    """A task for evaluation: a split, the templates of the original task, how many they are, and a guess's accuracy.

    `file` is the YAML file that lists it; None for the lists of this package.
    """

    name: str
    path: str
    configuration: str | None
    split: str
    prompts: int
    random: Fraction
    file: str | None = None

    @property
    def data_set(self) -> str:
        """Its name among templates."""
        return self.path if self.configuration is None else f"{self.path}/{self.configuration}"

    def chosen(self, templates: Sequence[Template]) -> tuple[Template, ...]:
        """The templates of the original task; raises UserError where they are not as many as published."""
        found = tuple(template for template in templates if template.is_original_task)
        if len(found) != self.prompts:
            mend = "use promptsource 0.2.3"
            if self.file is not None:
                mend = f"mend its prompts in {self.file}, or use the templates that this file was written for"
            raise UserError(
                f"{self.name} is evaluated with {self.prompts} prompts, but {self.data_set} has {len(found)} templates "
                f"of its original task; {mend}."
            )
        return found


class _Unsaid(tuple[HeldOutTask, ...]):
    """No tasks, because no file has said anything of them yet."""


UNSAID = _Unsaid()


@dataclass(frozen=True)
class Mixture:
    """What is trained on, in the order of the file; `held_out` are the tasks that stay unseen with it."""

    name: str
    data_sets: tuple[MixedDataSet, ...]
    held_out: tuple[HeldOutTask, ...]
    cap: int

    def find(self, data_set: str) -> MixedDataSet:
        """A data set by its name among templates; raises UserError where the mixture does not have it."""
        for entry in self.data_sets:
            if entry.data_set == data_set:
                return entry
        near = nearest(data_set, [entry.data_set for entry in self.data_sets])
        raise UserError(f"the mixture {self.name} has no data set {data_set};{near} It has {len(self.data_sets)}.")

    def check_data_sets(self, known: Sequence[str], where: str) -> None:
        """Raise UserError, a sentence for each, for data sets without templates; `where` is the folder of templates."""
        faults = [
            f"the mixture {self.name} has {entry.data_set}, of which {where} has no templates;"
            f"{nearest(entry.data_set, known) or ' leave it out.'}"
            for entry in self.data_sets
            if entry.data_set not in known
        ]
        if faults:
            raise UserError(*faults)


def template_cap(examples: int, num_templates: int, cap: int = CAP) -> int:
    """How many examples one template of a data set stands for in a mixture: its weight, and the most that it takes.

    All of a data set up to the cap; of a larger one its templates have the cap between them (T0: 500,000 // templates).
    So a small data set counts once for each of its templates, as in T0.
    """
    return examples if examples <= cap else cap // num_templates


def read_mixture(name: str) -> Mixture:
    """A mixture of this package by its name, e.g. "t0", or a YAML file by its path.

    Raises UserError for a name that is not known, a fault of the file, a data set named twice, a task held out twice,
    and a held-out data set that is trained on, under whatever name, without being released.
    """
    mixture = _mixture_of(name, ())
    if mixture.held_out is UNSAID:
        mixture = replace(mixture, held_out=read_held_out(HELD_OUT_OF_T0))
    named: set[str] = set()
    for entry in mixture.data_sets:
        if entry.data_set in named:
            raise UserError(f"the mixture {name} has {entry.data_set} twice; leave one out.")
        named.add(entry.data_set)
    _refuse_leaks(mixture)
    return mixture


def _refuse_leaks(mixture: Mixture) -> None:
    leaked: dict[str, str] = {}  # what is held out, by what is trained on
    for entry in mixture.data_sets:
        for task in mixture.held_out:
            if share_examples((entry.path, entry.configuration), (task.path, task.configuration)):
                leaked[entry.data_set] = task.data_set
    if leaked:
        shown = [own if own == held else f"{own} (it shares examples with {held})" for own, held in leaked.items()]
        raise UserError(
            f"the mixture {mixture.name} trains on {', '.join(shown)}, which its held-out tasks are of; "
            f"leave that out, or name {', '.join(dict.fromkeys(leaked.values()))} under releases."
        )


def read_held_out(name: str) -> tuple[HeldOutTask, ...]:
    """The tasks of a file of this package, e.g. "t0_held_out", or of a YAML file by its path."""
    content = content_of(name)
    entries = list_of(content, "tasks", name)
    tasks = tuple(_task_of(entry, name) for entry in entries)
    _refuse_twins(tasks, name)
    return tasks


def _refuse_twins(tasks: Sequence[HeldOutTask], name: str) -> None:
    """Two tasks of one name would share their files; two of one split would be the same prompts."""
    names: set[str] = set()
    splits: dict[tuple[str, str], str] = {}
    for task in tasks:
        if task.name in names:
            raise UserError(f"{name} holds out two tasks named {task.name}; leave one out, or rename it.")
        names.add(task.name)
        other = splits.setdefault((task.data_set, task.split), task.name)
        if other != task.name:
            raise UserError(
                f"{name} holds out {task.split} of {task.data_set} as {other} and as {task.name}; leave one out."
            )


def _mixture_of(name: str, below: tuple[str, ...]) -> Mixture:
    if identity_of(name) in map(identity_of, below):
        raise UserError(f"the mixture {name} extends itself, by way of {', '.join(below)}.")
    content = content_of(name)
    refuse_unknown(content, {"held_out", "releases", "extends", "cap", "data_sets"}, name)
    base = Mixture(name, (), UNSAID, CAP)
    if "extends" in content:
        base = _mixture_of(named_in(name, content["extends"]), (*below, name))
    held_out, releases = _held_out_of(content, name, base.held_out), content.get("releases", [])
    if not isinstance(releases, list):
        raise UserError(f"releases of the mixture {name} is {short_repr(releases)}; give a list of data sets.")
    if releases and held_out is UNSAID:
        held_out = read_held_out(HELD_OUT_OF_T0)
    known = {task.data_set for task in held_out}
    for released in releases:
        if not isinstance(released, str) or released not in known:
            raise UserError(
                f"the mixture {name} releases {released if isinstance(released, str) else short_repr(released)}, "
                "which no held-out task is of; leave it out."
            )
    cap = content.get("cap", base.cap)
    if not isinstance(cap, int) or isinstance(cap, bool) or cap < 1:
        raise UserError(f"cap of the mixture {name} is {short_repr(cap)}; give a number of examples from 1.")
    own = tuple(_data_set_of(entry, name) for entry in list_of(content, "data_sets", name))
    if releases:
        held_out = tuple(task for task in held_out if task.data_set not in releases)
    return replace(base, name=name, data_sets=base.data_sets + own, held_out=held_out, cap=cap)


def _held_out_of(content: dict[str, Any], name: str, known: tuple[HeldOutTask, ...]) -> tuple[HeldOutTask, ...]:
    """The held-out tasks of the mixture that is extended, and of this one's own list."""
    if "held_out" not in content:
        return known
    if content["held_out"] != NONE:
        held_out = known + read_held_out(named_in(name, content["held_out"]))
        _refuse_twins(held_out, f"the mixture {name}")
        return held_out
    if known:
        raise UserError(
            f"the mixture {name} holds out nothing, but what it extends does; name data sets under releases instead."
        )
    return ()


def _data_set_of(entry: dict[str, Any], name: str) -> MixedDataSet:
    refuse_unknown(entry, {"path", "configuration", "examples", "templates"}, name)
    path, configuration = hub_name(entry, name)
    examples, templates = entry.get("examples"), entry.get("templates", ALL)
    if examples is not None and (not isinstance(examples, int) or isinstance(examples, bool) or examples < 1):
        raise UserError(
            f"examples of {path} in {name} is {short_repr(examples)}; give a number from 1, or leave it out."
        )
    if isinstance(templates, list) and templates and all(isinstance(template, str) for template in templates):
        if len(set(templates)) < len(templates):
            raise UserError(f"templates of {path} in {name} has a template twice; leave one out.")
        templates = tuple(templates)
    elif templates not in (ALL, ORIGINAL):
        raise UserError(
            f"templates of {path} in {name} is {short_repr(templates)}; give all, original or a list of names."
        )
    return MixedDataSet(path, configuration, examples, templates)


def _task_of(entry: dict[str, Any], name: str) -> HeldOutTask:
    refuse_unknown(entry, {"name", "path", "configuration", "split", "prompts", "random"}, name)
    path, configuration = hub_name(entry, name)
    title, split, prompts = entry.get("name"), entry.get("split"), entry.get("prompts")
    if not isinstance(title, str) or not isinstance(split, str) or type(prompts) is not int or prompts < 1:
        raise UserError(f"a task of {path} in {name} needs a name, a split and its number of prompts.")
    if not is_path(title) or not is_name(split):
        raise UserError(f"{name} has a task {short_repr(title)} of the split {short_repr(split)}; names have {RULE}.")
    accuracy = str(entry.get("random"))
    random = Fraction(accuracy) if _SHARE.fullmatch(accuracy) else Fraction(-1)
    if not 0 <= random <= 1:
        raise UserError(
            f"random of {title} in {name} is {short_repr(entry.get('random'))}; give an accuracy such as 1/3 or 0.25."
        )
    return HeldOutTask(title, path, configuration, split, prompts, random, name if is_file(name) else None)
