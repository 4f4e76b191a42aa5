"""Held-out tasks as questions: the examples of a data set through every template of its original task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from megatron.basics.errors import UserError, nearest
from megatron.evaluation.generation_metrics import metrics_of
from megatron.evaluation.rank_classification import ACCURACY, ACCURACY_PER_TOKEN
from megatron.prompting.data_sets import DataMissing, DataSets
from megatron.prompting.mixture import HeldOutTask, read_held_out
from megatron.prompting.rendering import render_examples
from megatron.prompting.same_examples import share_examples
from megatron.prompting.split_files import SplitFile
from megatron.prompting.template import Prompted, Template, fault_of_choices
from megatron.prompting.template_files import data_sets_of, read_templates

LIST_OF_THE_STUDY = "t0_held_out"
MOST_SKIPPED = 1 / 2  # of a template's examples; where it is more, template or data are not what they should be


@dataclass
class Skipped:
    """Examples as a template words them that cannot be asked or scored: how many, and what the first one has."""

    count: int = 0
    first: str = ""

    def add(self, index: int, fault: str) -> None:
        """One more; `fault` is read after "example 7 has"."""
        self.count += 1
        self.first = self.first or f"example {index} has {fault}"


@dataclass
class PromptedExamples:
    """What one template makes of a split. metrics: to be measured. questions: (number of the example, its prompt).

    left_out: examples that the template does not apply to.
    """

    template: Template
    metrics: tuple[str, ...]
    questions: list[tuple[int, Prompted]] = field(default_factory=list)
    left_out: int = 0
    skipped: Skipped = field(default_factory=Skipped)

    def check_skipped(self) -> None:
        """Raise UserError where most examples would not be scored."""
        asked = len(self.questions) + self.skipped.count
        if self.skipped.count > MOST_SKIPPED * asked:
            raise UserError(
                f"{self.template.title}: {self.skipped.count} of {asked} examples cannot be scored, because "
                f"{self.skipped.first}; mend template or data, or leave the task out."
            )


@dataclass(frozen=True)
class PromptedTask:
    """A task with its prompts. source: of its examples. unmeasured: templates none of whose metrics is known here."""

    task: HeldOutTask
    source: str
    prompts: tuple[PromptedExamples, ...]
    unmeasured: tuple[str, ...] = ()


def tasks_named(names: Sequence[str]) -> tuple[HeldOutTask, ...]:
    """The study's list, or of it the tasks that are named, and all tasks of YAML files in the form of that list.

    Raises UserError for names that are not known, for two tasks of one name, and for two of one split, which would
    count twice in the mean.
    """
    study = {task.name: task for task in read_held_out(LIST_OF_THE_STUDY)}
    if not names:
        return tuple(study.values())
    found: list[HeldOutTask] = []
    for name in names:
        if name.endswith((".yaml", ".yml")):
            found += read_held_out(name)
        elif name in study:
            found.append(study[name])
        else:
            raise UserError(
                f"--t0-tasks {name} is not known;{nearest(name, study)} Give YAML files or some of {', '.join(study)}."
            )
    twice = sorted({task.name for task in found if sum(task.name == other.name for other in found) > 1})
    if twice:
        raise UserError(f"--t0-tasks has {', '.join(twice)} twice; leave one out, or give it another name.")
    first_of: dict[tuple[str, str], str] = {}
    for task in found:
        first = first_of.setdefault((task.data_set, task.split), task.name)
        if first != task.name:
            raise UserError(
                f"--t0-tasks has {task.split} of {task.data_set} as {first} and as {task.name}; leave one out."
            )
    return tuple(found)


def trained_among(tasks: Sequence[HeldOutTask], prefixes: Sequence[str]) -> list[str]:
    """Names of the tasks of whose data sets a model has seen training examples, under whatever name.

    prefixes: of the files that it trained on, which end with the names of their data sets as tools/prepare_tasks.py
    writes them.
    """
    trained = [name for prefix in prefixes for name in _data_sets_named(Path(prefix).parts)]
    return [
        task.name for task in tasks if any(share_examples((task.path, task.configuration), name) for name in trained)
    ]


def _data_sets_named(parts: Sequence[str]) -> list[tuple[str, str | None]]:
    """What the end of a path may mean: a data set with or without an owner, with or without a configuration."""
    plain = [("/".join(parts[-length:]), None) for length in (1, 2)]
    return [*plain, *(("/".join(parts[-length - 1 : -1]), parts[-1]) for length in (1, 2) if len(parts) > length)]


def prompted_tasks(
    tasks: Sequence[HeldOutTask],
    templates: Path,
    data_sets: DataSets,
    *,
    required: Collection[str],
    limit: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[list[PromptedTask], dict[str, str]]:
    """The questions of each task, and the tasks without data or templates with the reason.

    limit: examples of each data set, the first ones. required: names of tasks that must not be missing. advance(n): n
    more examples have gone through all templates of their task. Raises UserError, also where nothing is left.
    """
    found: list[tuple[HeldOutTask, SplitFile]] = []
    missing: dict[str, str] = {}
    known = data_sets_of(templates)
    for task in tasks:
        if task.data_set not in known:
            missing[task.name] = f"{templates} has no templates of {task.data_set}."
            continue
        try:
            found.append((task, data_sets.find(task.path, task.configuration, task.split)))
        except DataMissing as error:
            missing[task.name] = str(error)
    lacking = [name for name in missing if name in required]
    if lacking:
        file_of = {task.name: f"{task.file}: " for task in tasks if task.file is not None}
        raise UserError(
            *(f"--t0-tasks {file_of.get(name, '')}{name} cannot be scored: {missing[name]}" for name in lacking)
        )
    if not found:
        name, reason = next(iter(missing.items()))
        raise UserError(f"--t0-eval has no data of any of its tasks; of {name}, {reason}")
    chosen = [task.chosen(read_templates(templates, task.data_set)) for task, _ in found]
    prompted = [_prompted(task, own, data, limit, advance) for (task, data), own in zip(found, chosen, strict=True)]
    return prompted, missing


def _prompted(
    task: HeldOutTask,
    templates: Sequence[Template],
    data: SplitFile,
    limit: int | None,
    advance: Callable[[int], None],
) -> PromptedTask:
    prompts = []
    unmeasured = []
    for template in templates:
        metrics = _metrics_of(template)
        if metrics:
            prompts.append(PromptedExamples(template, metrics))
        else:
            unmeasured.append(template.name)
    for rendered in render_examples([prompt.template for prompt in prompts], islice(data.rows(), limit)):
        for prompt, prompted in zip(prompts, rendered.prompted, strict=True):
            _add(prompt, rendered.index, prompted)
        advance(1)
    for prompt in prompts:
        prompt.check_skipped()
    if not any(prompt.questions for prompt in prompts):
        raise UserError(
            f"{task.name} has no question in {data.path}: its {len(templates)} templates have neither choices nor a "
            "metric that is known, or leave out every example; mend the templates, or leave the task out."
        )
    return PromptedTask(task, str(data.path), tuple(prompts), tuple(unmeasured))


def _metrics_of(template: Template) -> tuple[str, ...]:
    if template.answer_choices is not None:
        return (ACCURACY, ACCURACY_PER_TOKEN)
    return metrics_of(template.metrics)


def _fault(prompted: Prompted) -> str | None:
    """Why a prompt is no question, to be read after "example 7 has"; None where it is one."""
    if prompted.choices is not None and (fault := fault_of_choices(prompted)) is not None:
        return fault
    try:
        "".join((prompted.inputs, *prompted.targets, *(prompted.choices or ()))).encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which no tokenizer takes
        return "text that is not Unicode"
    return None


def _add(prompt: PromptedExamples, index: int, prompted: Prompted | None) -> None:
    """Take a prompt as a question, or count why it is none."""
    if prompted is None:
        prompt.left_out += 1
        return
    fault = _fault(prompted)
    if fault is None:
        prompt.questions.append((index, prompted))
    else:
        prompt.skipped.add(index, fault)
