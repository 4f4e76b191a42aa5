"""Rank classification: the likeliest choice of a question is the answer (Brown et al. 2020; Sanh et al. 2022).

Likelihood is the sum of the log-probabilities of a choice's tokens behind the inputs, the end token among them: T0's
tasks append one to every choice before they are scored, as training does to targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Never normalised by length, and beside it the same with means over the tokens of a choice.
ACCURACY, ACCURACY_PER_TOKEN = "accuracy", "accuracy_per_token"

Ids = NDArray[np.int32]
Pair = tuple[tuple[int, ...], tuple[int, ...]]  # token ids of inputs, and of what is scored behind them
LogLikelihoods = Callable[[Sequence[Pair]], Sequence[float]]


@dataclass(frozen=True, eq=False)
class ChoiceQuestion:
    """Token ids of inputs and of each choice, int32 [n], and the numbers of the choices that are right."""

    inputs: Ids
    choices: tuple[Ids, ...]
    right: tuple[int, ...]


@dataclass(frozen=True)
class Ranking:
    """The log-likelihood of each choice, how many tokens it has, and the numbers of those that are right."""

    log_likelihoods: tuple[float, ...]
    num_tokens: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def chosen(self) -> int:
        """The choice with the largest sum, whatever its length; the first of equal ones."""
        return int(np.argmax(self.log_likelihoods))

    @property
    def chosen_per_token(self) -> int:
        """The choice with the largest mean over its tokens, which favours long ones."""
        return int(np.argmax(np.array(self.log_likelihoods) / np.array(self.num_tokens)))

    @property
    def is_right(self) -> bool:
        """What accuracy counts."""
        return self.chosen in self.right

    @property
    def is_right_per_token(self) -> bool:
        """What accuracy normalised by length counts."""
        return self.chosen_per_token in self.right


def rank(questions: Sequence[ChoiceQuestion], log_likelihoods: LogLikelihoods) -> list[Ranking]:
    """Rank the choices of all questions; every choice of a question is asked for behind the same inputs."""
    pairs: list[Pair] = []
    for question in questions:
        inputs = tuple(question.inputs.tolist())
        pairs += [(inputs, tuple(choice.tolist())) for choice in question.choices]
    values = iter(log_likelihoods(pairs) if pairs else [])
    return [
        Ranking(
            log_likelihoods=tuple(next(values) for _ in question.choices),
            num_tokens=tuple(map(len, question.choices)),
            right=question.right,
        )
        for question in questions
    ]
