"""How far apart the means of T0-Eval of several runs lie, for one: whether finetuning has helped beyond doubt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from megatron.evaluation.prompt_spread import NORMALISED
from megatron.evaluation.rank_classification import ACCURACY, ACCURACY_PER_TOKEN
from megatron.evaluation.results import Results

EXPLANATION = (
    "Differences of the means from those of {first}, ± sqrt(a² + b²) of their standard errors, as of independent "
    "answers: too large where runs answer the same examples alike."
)


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
            told = ", ".join(f"{metric} {_difference(mean[metric], first[metric])}" for metric in metrics)
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


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if one["value"] is None or other["value"] is None:
        return "not known"
    value = f"{one['value'] - other['value']:+.4f}"
    if one["stderr"] is None or other["stderr"] is None:
        return value
    return f"{value} ± {math.hypot(one['stderr'], other['stderr']):.4f}"
