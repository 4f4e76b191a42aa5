"""Which data sets are trained on and how much of each, and which tasks are kept for evaluation: files of mixtures/.

    held_out: t0_held_out             a file of held-out tasks; none of their data sets may be trained on
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
from pathlib import Path
from typing import Any

from megatron.basics.errors import UserError, nearest
from megatron.prompting.hub_names import RULE, is_name, is_path
from megatron.prompting.template import Template

SHIPPED = Path(__file__).parent / "mixtures"
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

    Raises UserError for a name that is not known, a fault of the file, a data set named twice, and a held-out data set
    that is trained on without being released.
    """
    mixture = _mixture_of(name, ())
    named: set[str] = set()
    for entry in mixture.data_sets:
        if entry.data_set in named:
            raise UserError(f"the mixture {name} has {entry.data_set} twice; leave one out.")
        named.add(entry.data_set)
    leaked = sorted(named & {task.data_set for task in mixture.held_out})
    if leaked:
        raise UserError(
            f"the mixture {name} trains on {', '.join(leaked)}, which its held-out tasks are of; "
            "leave that out, or name it under releases."
        )
    return mixture


def read_held_out(name: str) -> tuple[HeldOutTask, ...]:
    """The tasks of a file of this package, e.g. "t0_held_out", or of a YAML file by its path."""
    content = _content_of(name)
    entries = _list_of(content, "tasks", name)
    tasks = tuple(_task_of(entry, name) for entry in entries)
    if len({task.name for task in tasks}) < len(tasks):
        raise UserError(f"{name} has two tasks of one name; rename one.")
    return tasks


def _mixture_of(name: str, below: tuple[str, ...]) -> Mixture:
    if name in below:
        raise UserError(f"the mixture {name} extends itself, by way of {', '.join(below)}.")
    content = _content_of(name)
    _refuse_unknown(content, {"held_out", "releases", "extends", "cap", "data_sets"}, name)
    base = Mixture(name, (), (), CAP)
    if "extends" in content:
        base = _mixture_of(_named_in(name, content["extends"]), (*below, name))
    held_out = base.held_out
    if "held_out" in content:
        held_out += read_held_out(_named_in(name, content["held_out"]))
    releases = content.get("releases", [])
    known = {task.data_set for task in held_out}
    for released in releases if isinstance(releases, list) else [releases]:
        if not isinstance(released, str) or released not in known:
            raise UserError(f"the mixture {name} releases {released}, which no held-out task is of; leave it out.")
    cap = content.get("cap", base.cap)
    if not isinstance(cap, int) or isinstance(cap, bool) or cap < 1:
        raise UserError(f"cap of the mixture {name} is {cap!r}; give a number of examples from 1.")
    own = tuple(_data_set_of(entry, name) for entry in _list_of(content, "data_sets", name))
    kept = tuple(task for task in held_out if task.data_set not in releases)
    return replace(base, name=name, data_sets=base.data_sets + own, held_out=kept, cap=cap)


def _is_file(name: str) -> bool:
    """Whether a name is that of a file of one's own, and not of one of this package."""
    return name.endswith((".yaml", ".yml"))


def _named_in(file: str, other: Any) -> str:
    """What a file calls another one, as seen from here: a mixture is the same from wherever a command starts."""
    return str(Path(file).parent / str(other)) if _is_file(str(other)) else str(other)


def _content_of(name: str) -> dict[str, Any]:
    import yaml

    path = Path(name) if _is_file(name) else SHIPPED / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        shipped = sorted(known.stem for known in SHIPPED.glob("*.yaml"))
        near = nearest(name, shipped)
        raise UserError(
            f"{name} is neither a YAML file nor one of {', '.join(shipped)};{near} check the name."
        ) from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}); mend the file.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a mapping; see megatron/prompting/mixtures/t0.yaml for the form.")
    return content


def _list_of(content: dict[str, Any], key: str, name: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{key} of {name} is not a list of mappings like {{path: glue, configuration: mrpc}}.")
    return entries


def _data_set_of(entry: dict[str, Any], name: str) -> MixedDataSet:
    _refuse_unknown(entry, {"path", "configuration", "examples", "templates"}, name)
    path, configuration = _hub_name(entry, name)
    examples, templates = entry.get("examples"), entry.get("templates", ALL)
    if examples is not None and (not isinstance(examples, int) or isinstance(examples, bool) or examples < 1):
        raise UserError(f"examples of {path} in {name} is {examples!r}; give a number from 1, or leave it out.")
    if isinstance(templates, list) and templates and all(isinstance(template, str) for template in templates):
        templates = tuple(templates)
    elif templates not in (ALL, ORIGINAL):
        raise UserError(f"templates of {path} in {name} is {templates!r}; give all, original or a list of names.")
    return MixedDataSet(path, configuration, examples, templates)


def _task_of(entry: dict[str, Any], name: str) -> HeldOutTask:
    _refuse_unknown(entry, {"name", "path", "configuration", "split", "prompts", "random"}, name)
    path, configuration = _hub_name(entry, name)
    title, split, prompts = entry.get("name"), entry.get("split"), entry.get("prompts")
    if not isinstance(title, str) or not isinstance(split, str) or type(prompts) is not int or prompts < 1:
        raise UserError(f"a task of {path} in {name} needs a name, a split and its number of prompts.")
    if not is_path(title) or not is_name(split):
        raise UserError(f"{name} has a task {title!r} of the split {split!r}; names have {RULE}.")
    accuracy = str(entry.get("random"))
    random = Fraction(accuracy) if _SHARE.fullmatch(accuracy) else Fraction(-1)
    if not 0 <= random <= 1:
        raise UserError(
            f"random of {title} in {name} is {entry.get('random')!r}; give an accuracy such as 1/3 or 0.25."
        )
    return HeldOutTask(title, path, configuration, split, prompts, random, name if _is_file(name) else None)


def _hub_name(entry: dict[str, Any], name: str) -> tuple[str, str | None]:
    path, configuration = entry.get("path"), entry.get("configuration")
    if not isinstance(path, str) or not isinstance(configuration, str | None):
        raise UserError(f"path or configuration of an entry of {name} is not text: {entry}; write it in quotes.")
    if not is_path(path) or not (configuration is None or is_name(configuration)):
        raise UserError(
            f"{name} has a data set with the path {path!r} and the configuration {configuration!r}; names have {RULE}, "
            "and a path slashes between them."
        )
    return path, configuration


def _refuse_unknown(entry: dict[str, Any], known: set[str], name: str) -> None:
    for key in entry:
        if key not in known:
            raise UserError(
                f"{name} has {key}, which is not known;{nearest(str(key), known)} Known: {', '.join(sorted(known))}."
            )
