"""From answers to scores: the mean over examples, the median over prompts, the mean over data sets.

Source: Sanh et al. 2022, section 6.1; Wang et al. 2022, section 3.4.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NORMALISED = "normalised_accuracy"  # see `above_random`


@dataclass(frozen=True)
class Measured:
    """A mean and its standard error, NaN where there is too little to tell."""

    value: float
    error: float


@dataclass(frozen=True)
class Spread:
    """The scores of the prompts of one data set.

    error: that of the prompts in the middle; of two it is their mean, which is not too small, because both have the
    same examples.
    """

    median: float
    lowest: float
    highest: float
    error: float
    prompts: int


def over_examples(values: Sequence[float]) -> Measured:
    """The mean of one value for each example, with the standard error that lm-eval gives it."""
    if not values:
        return Measured(math.nan, math.nan)
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Measured(statistics.fmean(values), error)


def over_prompts(scores: Sequence[Measured]) -> Spread:
    """The median over the prompts of a data set, and how far they lie apart."""
    values = [score.value for score in scores]
    middle = [scores[place] for place in in_the_middle(values)]
    return Spread(
        median=statistics.fmean(score.value for score in middle),
        lowest=min(values),
        highest=max(values),
        error=statistics.fmean(score.error for score in middle),
        prompts=len(values),
    )


def in_the_middle(values: Sequence[float]) -> list[int]:
    """The places of the one or two values whose mean is the median; of equal ones those that stand in the middle."""
    ordered = sorted(range(len(values)), key=values.__getitem__)
    return ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]


def over_data_sets(scores: Sequence[Measured]) -> Measured:
    """The unweighted mean over data sets, whose errors do not depend on one another; NaN over none."""
    if not scores:
        return Measured(math.nan, math.nan)
    error = math.sqrt(sum(score.error**2 for score in scores)) / len(scores)
    return Measured(statistics.fmean(score.value for score in scores), error)


def above_random(score: Measured, random: float) -> Measured:
    """The part of the way from guessing to no mistake that a score has gone: 0 is random, 1 is perfect."""
    if random >= 1:
        return Measured(math.nan, math.nan)
    return Measured((score.value - random) / (1 - random), score.error / (1 - random))
