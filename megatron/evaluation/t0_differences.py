"""How far apart the means of T0-Eval of several runs lie, for one: whether finetuning has helped beyond doubt."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from megatron.evaluation.answer_lines import answers_in
from megatron.evaluation.prompt_spread import NORMALISED, in_the_middle
from megatron.evaluation.rank_classification import ACCURACY, ACCURACY_PER_TOKEN
from megatron.evaluation.results import Results

EXPLANATION = (
    "Differences of the means from those of {first}, ± standard error: of the differences of answers to the same "
    "examples, with the prompts in the middle of each run. For data sets whose results do not tell answers it is "
    "sqrt(a² + b²) of both errors, as of independent answers. An example that one run alone could ask is in that "
    "run's mean and in no error."
)

Task = Mapping[str, Any]


def explanation(runs: Sequence[Results]) -> str:
    """What the lines of `t0_differences` are."""
    return EXPLANATION.format(first=runs[0].name)


def t0_differences(runs: Sequence[Results]) -> Iterator[str]:
    """A line for each further run with means: what they are more than those of the first one."""
    first = _mean(runs[0])
    for run in runs[1:]:
        mean = _mean(run)
        if not (first and mean):
            continue
        if _asked(runs[0]) == _asked(run):
            metrics = (ACCURACY, ACCURACY_PER_TOKEN, NORMALISED)
            told = ", ".join(f"{metric} {_difference(run, runs[0], metric)}" for metric in metrics)
        else:
            told = "not told, because the means are over other data sets or examples"
        yield f"{run.name} - {runs[0].name}: {told}"


def _mean(run: Results) -> Mapping[str, Any]:
    """Empty where no data set counts for it."""
    mean: Mapping[str, Any] = run.t0.get("mean", {})
    return mean if mean.get("data_sets") else {}


def _asked(run: Results) -> tuple[list[str], Any]:
    """What the means are over: data sets, and how many examples of each."""
    return sorted(run.t0["mean"]["data_sets"]), run.t0.get("limit")


def _difference(run: Results, first: Results, metric: str) -> str:
    one, other = (each.t0["mean"][metric]["value"] for each in (run, first))
    if one is None or other is None:
        return "not known"
    names = first.t0["mean"]["data_sets"]
    pairs = [[each.t0["tasks"].get(name, {}) for each in (run, first)] for name in names]
    errors = [error for one_task, other_task in pairs if (error := _error(one_task, other_task, metric)) is not None]
    told = f" ± {math.hypot(*errors) / len(names):.4f}" if len(errors) == len(names) else ""
    return f"{one - other:+.4f}{told}"


def _error(one: Task, other: Task, metric: str) -> float | None:
    """The standard error of the difference of two runs on a data set; None where a run has none."""
    if metric == NORMALISED:
        error = _error(one, other, ACCURACY)
        return None if error is None else error / (1 - one["random"])
    if any(metric not in task.get("metrics", {}) for task in (one, other)):
        return None
    answers = [_answers(task, metric) for task in (one, other)]
    shared = answers[0].keys() & answers[1].keys()
    if len(shared) > 1:
        return statistics.stdev(answers[0][number] - answers[1][number] for number in shared) / math.sqrt(len(shared))
    errors = [task["metrics"][metric]["stderr"] for task in (one, other)]
    return None if None in errors else math.hypot(*errors)


def _answers(task: Task, metric: str) -> dict[int, float]:
    """Of the examples that the prompts in the middle all asked, the share of these that was right."""
    values = {place: prompt["metrics"].get(metric, {}).get("value") for place, prompt in enumerate(task["prompts"])}
    places = [place for place, value in values.items() if value is not None]
    middle = [task["prompts"][places[number]] for number in in_the_middle([values[place] for place in places])]
    lines = [answers_in(prompt.get("right", {}).get(metric, "")) for prompt in middle]
    asked = set.intersection(*(set(line) for line in lines)) if lines else set()
    return {number: statistics.fmean(line[number] for line in lines) for number in asked}
