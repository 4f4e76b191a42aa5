"""The scores of T0-Eval as results.json has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from megatron.evaluation.answer_lines import answer_line
from megatron.evaluation.prompt_spread import NORMALISED, Measured, Spread, above_random, over_data_sets
from megatron.evaluation.rank_classification import ACCURACY, ACCURACY_PER_TOKEN
from megatron.evaluation.t0_eval import PromptScore, TaskScore
from megatron.prompting.mixture import HeldOutTask


def entry_of(scores: Sequence[TaskScore], missing: Mapping[str, str], **facts: Any) -> dict[str, Any]:
    """The results as plain JSON values. missing: tasks without data, with the reason. facts: stand beside them."""
    return {
        **facts,
        "mean": _means(scores, len(scores) + len(missing)),
        "tasks": {score.task.task.name: _task_entry(score) for score in scores},
        "missing": dict(missing),
    }


def _means(scores: Sequence[TaskScore], wanted: int) -> dict[str, Any]:
    """Over the data sets with choices; generation metrics have no common scale."""
    ranked = [score for score in scores if ACCURACY in score.spreads]
    means: dict[str, Any] = {}
    for metric in (ACCURACY, ACCURACY_PER_TOKEN):
        medians = [_median(score.spreads[metric]) for score in ranked]
        means[metric] = _plain(over_data_sets(medians))
    above = [above_random(_median(score.spreads[ACCURACY]), _random(score.task.task)) for score in ranked]
    means[NORMALISED] = _plain(over_data_sets(above))
    randoms = [_random(score.task.task) for score in ranked]
    return means | {
        "random": sum(randoms) / len(randoms) if randoms else None,
        "data_sets": [score.task.task.name for score in ranked],
        "of": wanted - (len(scores) - len(ranked)),
    }


def _task_entry(score: TaskScore) -> dict[str, Any]:
    task, spreads = score.task.task, score.spreads
    metrics = {
        metric: {
            "median": _number(spread.median),
            "stderr": _number(spread.error),
            "min": _number(spread.lowest),
            "max": _number(spread.highest),
            "prompts": spread.prompts,
        }
        for metric, spread in spreads.items()
    }
    entry: dict[str, Any] = {"data_set": task.data_set, "split": task.split, "data": score.task.source}
    if ACCURACY in spreads:
        entry["random"] = _random(task)
        entry[NORMALISED] = _plain(above_random(_median(spreads[ACCURACY]), _random(task)))
    entry["metrics"] = metrics
    entry["prompts"] = [_prompt_entry(prompt) for prompt in score.prompts]
    asked = {prompt.prompt.template.id for prompt in score.prompts}
    silent = [prompt.template.name for prompt in score.task.prompts if prompt.template.id not in asked]
    return entry | {"prompts_without_questions": silent, "prompts_without_metrics": [*score.task.unmeasured]}


def _prompt_entry(score: PromptScore) -> dict[str, Any]:
    prompt = score.prompt
    numbers = [number for number, _ in prompt.questions]
    return {
        "template": prompt.template.name,
        "id": prompt.template.id,
        "examples": score.examples,
        "left_out": prompt.left_out,
        "skipped": prompt.skipped.count,
        "first_skipped": prompt.skipped.first or None,
        "inputs_cut": score.cut,
        "metrics": {metric: _plain(measured) for metric, measured in score.measures.items()},
        "right": {metric: answer_line(numbers, right) for metric, right in score.right.items()},
    }


def _median(spread: Spread) -> Measured:
    return Measured(spread.median, spread.error)


def _random(task: HeldOutTask) -> float:
    return float(task.random)


def _plain(measured: Measured) -> dict[str, float | None]:
    return {"value": _number(measured.value), "stderr": _number(measured.error)}


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
