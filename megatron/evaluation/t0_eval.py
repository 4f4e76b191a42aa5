"""T0-Eval: held-out tasks through all prompts of each, as Sanh et al. 2022 and Wang et al. 2022 score them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from megatron.evaluation.answering_model import AnsweringModel
from megatron.evaluation.encoded_prompts import EncodedPrompt, EncodedTask
from megatron.evaluation.generation_metrics import measure
from megatron.evaluation.prompt_spread import Measured, Spread, over_examples, over_prompts
from megatron.evaluation.prompted_tasks import PromptedExamples, PromptedTask
from megatron.evaluation.rank_classification import ACCURACY, ACCURACY_PER_TOKEN, Ranking, rank


@dataclass(frozen=True)
class PromptScore:
    """What one template scores.

    measures: by metric. cut: examples whose inputs lost tokens at their beginning. right: by metric, whether the answer
    to each question was right, where there are choices.
    """

    prompt: PromptedExamples
    measures: Mapping[str, Measured]
    cut: int
    right: Mapping[str, Sequence[bool]] = field(default_factory=dict)

    @property
    def examples(self) -> int:
        """Questions that were answered."""
        return len(self.prompt.questions)


@dataclass(frozen=True)
class TaskScore:
    """What a task scores with each of its prompts that made questions."""

    task: PromptedTask
    prompts: tuple[PromptScore, ...]

    @property
    def spreads(self) -> dict[str, Spread]:
        """By metric, over the prompts that are measured by it."""
        metrics = dict.fromkeys(metric for prompt in self.prompts for metric in prompt.measures)
        return {
            metric: over_prompts([prompt.measures[metric] for prompt in self.prompts if metric in prompt.measures])
            for metric in metrics
        }


def score_tasks(
    tasks: Sequence[EncodedTask],
    model: AnsweringModel,
    say: Callable[[str], None] = lambda _: None,
) -> list[TaskScore]:
    """The scores of all tasks, one after the other; say(a line) tells of each when it is done.

    May be a collective, as the model's functions are.
    """
    scores = []
    for one in tasks:
        scores.append(TaskScore(one.task, tuple(_answered(one.prompts, model))))
        shown = ", ".join(f"{metric} {spread.median:.4f}" for metric, spread in scores[-1].spreads.items())
        say(f"{one.task.task.name}: {shown}")
    return scores


def _answered(prompts: Sequence[EncodedPrompt], model: AnsweringModel) -> list[PromptScore]:
    """The scores of the prompts of a task that have questions; all are asked at once."""
    rankings = iter(rank([question for one in prompts for question in one.choices], model.log_likelihoods))
    to_write = [inputs for one in prompts for inputs in one.inputs]
    written = iter(model.write(to_write) if to_write else [])
    scores = []
    for one in prompts:
        if one.choices:
            right = _right([next(rankings) for _ in one.choices])
            accuracies = {metric: over_examples([*map(float, values)]) for metric, values in right.items()}
            scores.append(PromptScore(one.prompt, accuracies, one.cut, right))
        elif one.inputs:
            texts = [next(written) for _ in one.inputs]
            scores.append(PromptScore(one.prompt, _written_measures(one.prompt, texts), one.cut))
    return scores


def _right(rankings: Sequence[Ranking]) -> dict[str, list[bool]]:
    return {
        ACCURACY: [ranking.is_right for ranking in rankings],
        ACCURACY_PER_TOKEN: [ranking.is_right_per_token for ranking in rankings],
    }


def _written_measures(prompt: PromptedExamples, texts: Sequence[str]) -> dict[str, Measured]:
    values = [
        measure(prompt.metrics, text, prompted.targets)
        for text, (_, prompted) in zip(texts, prompt.questions, strict=True)
    ]
    return {metric: over_examples([value[metric] for value in values]) for metric in prompt.metrics}
