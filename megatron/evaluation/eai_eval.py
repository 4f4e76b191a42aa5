"""The zero-shot task list of Wang et al. 2022 ("EAI-Eval"), under the names that lm-eval has for it today.

The study ran tasks of the EleutherAI harness of early 2022 without examples in the prompt, took the accuracy of each,
never the length-normalised one, and reported the unweighted mean over 31 of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HALF, THIRD, QUARTER = 1 / 2, 1 / 3, 1 / 4


@dataclass(frozen=True)
class EaiTask:
    """One task of the list.

    name: in the study. task: in lm-eval. random: accuracy of guessing, as the study drew it. metric: of lm-eval, with
    the filter in front of it. aggregated: it counts for the mean.
    """

    name: str
    task: str
    random: float
    metric: str = "acc,none"
    aggregated: bool = True


# lm-eval scores answers of TriviaQA and WebQuestions as exact matches, which the study's harness called acc. Its CB has
# the study's baseline of 1/2 in this mean, though the task has three answers.
EAI_TASKS = (
    EaiTask("anli_r1", "anli_r1", THIRD),
    EaiTask("anli_r2", "anli_r2", THIRD),
    EaiTask("anli_r3", "anli_r3", THIRD),
    EaiTask("arc_challenge", "arc_challenge", 0.2502),
    EaiTask("arc_easy", "arc_easy", 0.2502),
    EaiTask("boolq", "boolq", HALF),
    EaiTask("cb", "cb", HALF),
    EaiTask("copa", "copa", HALF),
    EaiTask("headqa_en", "headqa_en", QUARTER),
    EaiTask("hellaswag", "hellaswag", QUARTER),
    EaiTask("lambada", "lambada_openai", 0.0),
    EaiTask("logiqa", "logiqa", QUARTER),
    EaiTask("mathqa", "mathqa", 0.1884),
    EaiTask("mc_taco", "mc_taco", HALF, aggregated=False),
    EaiTask("mrpc", "mrpc", HALF),
    EaiTask("multirc", "multirc", 0.0),
    EaiTask("openbookqa", "openbookqa", QUARTER),
    EaiTask("piqa", "piqa", HALF),
    EaiTask("prost", "prost", QUARTER),
    EaiTask("pubmedqa", "pubmedqa", THIRD),
    EaiTask("qnli", "qnli", HALF),
    EaiTask("qqp", "qqp", HALF),
    EaiTask("race", "race", QUARTER),
    EaiTask("rte", "rte", HALF),
    EaiTask("sciq", "sciq", QUARTER),
    EaiTask("sst", "sst2", HALF),
    EaiTask("triviaqa", "triviaqa", 0.0, "exact_match,remove_whitespace"),
    EaiTask("webqs", "webqs", 0.0, "exact_match,none"),
    EaiTask("wic", "wic", HALF),
    EaiTask("winogrande", "winogrande", HALF),
    EaiTask("wnli", "wnli", HALF),
    EaiTask("wsc", "wsc", HALF),
)
BY_TASK = {entry.task: entry for entry in EAI_TASKS}
NUM_AGGREGATED = sum(entry.aggregated for entry in EAI_TASKS)


@dataclass(frozen=True)
class EaiMean:
    """The unweighted mean over those of the aggregated tasks that were scored.

    accuracy, random: means over the same tasks; NaN where none was scored. standard_error: of the mean, from those of
    the tasks. scored, missing: names in the study, in its order.
    """

    accuracy: float
    random: float
    standard_error: float
    scored: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the mean is the study's, over every aggregated task."""
        return not self.missing


def eai_mean(results: Mapping[str, Mapping[str, Any]]) -> EaiMean:
    """The mean over lm-eval's `results`, by the names of lm-eval; what is not there is named as missing."""
    aggregated = [entry for entry in EAI_TASKS if entry.aggregated]
    scored = [entry for entry in aggregated if isinstance(results.get(entry.task, {}).get(entry.metric), (int, float))]
    missing = tuple(entry.name for entry in aggregated if entry not in scored)
    if not scored:
        return EaiMean(math.nan, math.nan, math.nan, (), missing)
    values = [float(results[entry.task][entry.metric]) for entry in scored]
    errors = [_error(results[entry.task], entry.metric) for entry in scored]
    return EaiMean(
        accuracy=sum(values) / len(scored),
        random=sum(entry.random for entry in scored) / len(scored),
        standard_error=math.sqrt(sum(error**2 for error in errors)) / len(scored),
        scored=tuple(entry.name for entry in scored),
        missing=missing,
    )


def standard_error_name(metric: str) -> str:
    """`acc_stderr,none` of `acc,none`, as lm-eval names it."""
    name, _, filter_name = metric.partition(",")
    return f"{name}_stderr,{filter_name}"


def _error(result: Mapping[str, Any], metric: str) -> float:
    value = result.get(standard_error_name(metric))
    return float(value) if isinstance(value, (int, float)) else math.nan  # lm-eval writes N/A for too few examples
