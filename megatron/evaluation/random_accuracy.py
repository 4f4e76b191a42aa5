"""What guessing reaches in tasks of multiple choice, by the choices of the questions that were asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

# Metrics that guessing reaches by the number of choices.
METRICS_OF_CHOICES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")


def random_accuracies(specs: Sequence[Any]) -> dict[str, float]:
    """By name of task and group, after lm-eval evaluated `specs`, its tasks and groups.

    Of a task the mean of 1 / choices over its questions; of a group the mean that it takes of the scores of its tasks,
    over all questions or over tasks. Groups that take no mean, or different ones, are left out.
    """
    found: dict[str, float] = {}
    for one in (one for spec in specs for one in _with_all_below(spec)):
        tasks = _tasks_of(one)
        if not all(task.OUTPUT_TYPE == "multiple_choice" for task in tasks):
            continue
        if not _is_group(one):
            found[one.config.task] = _mean([*_chances(one)])
        elif len(means := {*_means(one, tasks)}) == 1:
            found[one.name] = means.pop()
    return found


def tasks_by_name(spec: Any) -> Iterator[tuple[str, list[Any]]]:
    """(name, its tasks) of a task of lm-eval, or of a group and all that is below it."""
    for one in _with_all_below(spec):
        yield one.name if _is_group(one) else one.config.task, _tasks_of(one)


def _with_all_below(spec: Any) -> Iterator[Any]:
    yield spec
    for child in spec if _is_group(spec) else ():
        yield from _with_all_below(child)


def _is_group(spec: Any) -> bool:
    return hasattr(spec, "get_all_tasks")


def _tasks_of(spec: Any) -> list[Any]:
    return [*spec.get_all_tasks()] if _is_group(spec) else [spec]


def _means(group: Any, tasks: Sequence[Any]) -> Iterator[float]:
    """For each of the group's metrics of choices the mean over those tasks that have it."""
    for rule in group.aggregate_metric_list or []:
        counted = [[*_chances(task)] for task in tasks if rule.metric in _metrics(task)]
        if rule.metric in METRICS_OF_CHOICES and counted:
            parts = [[chance for part in counted for chance in part]] if rule.weight_by_size else counted
            yield _mean([_mean(part) for part in parts])


def _metrics(task: Any) -> list[Any]:
    listed = [metric["metric"] for metric in task.config.metric_list or []]
    return listed or ["acc", "acc_norm"]  # lm-eval's, where a task names none


def _chances(task: Any) -> Iterator[float]:
    """1 / choices of each question of a multiple-choice task that was evaluated."""
    requests: dict[int, int] = {}
    for instance in task.instances:
        requests[instance.doc_id] = requests.get(instance.doc_id, 0) + 1
    times = 2 if "acc_mutual_info" in _metrics(task) else 1  # every choice is asked for once more without its question
    for count in requests.values():
        yield times / count


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
