"""T0-Eval: held-out tasks through all prompts of each, as Sanh et al. 2022 and Wang et al. 2022 score them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron.evaluation.answering_model import AnsweringModel
from megatron.evaluation.generation_metrics import measure
from megatron.evaluation.prompt_spread import (
    NORMALISED,
    Measured,
    Spread,
    above_random,
    over_data_sets,
    over_examples,
    over_prompts,
)
from megatron.evaluation.prompted_tasks import PromptedExamples, PromptedTask
from megatron.evaluation.rank_classification import (
    ACCURACY,
    ACCURACY_PER_TOKEN,
    ChoiceQuestion,
    Ids,
    Ranking,
    rank,
)
from megatron.prompting.mixture import HeldOutTask

MOST_INPUTS = 1024  # tokens, T0's length


@dataclass(frozen=True)
class PromptScore:
    """What one template scores.

    measures: by metric. cut: examples whose inputs lost tokens at their beginning.
    """

    prompt: PromptedExamples
    measures: Mapping[str, Measured]
    cut: int

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


@dataclass(frozen=True)
class _Encoded:
    """A prompt as the model takes it: of the questions of `prompt` those with choices, or the texts to go on from."""

    prompt: PromptedExamples
    choices: list[ChoiceQuestion]
    cut: int


def score_tasks(
    tasks: Sequence[PromptedTask],
    model: AnsweringModel,
    say: Callable[[str], None] = lambda _: None,
) -> list[TaskScore]:
    """The scores of all tasks, one after the other; say(a line) tells of each when it is done.

    Raises UserError, before anything is scored, where most choices of a template are too long for the model's rows.
    May be a collective, as the model's functions are.
    """
    encoded = [[_encoded(prompt, model) for prompt in task.prompts] for task in tasks]
    scores = []
    for task, prompts in zip(tasks, encoded, strict=True):
        scores.append(TaskScore(task, tuple(_answered(prompts, model))))
        shown = ", ".join(f"{metric} {spread.median:.4f}" for metric, spread in scores[-1].spreads.items())
        say(f"{task.task.name}: {shown}")
    return scores


def _encoded(prompt: PromptedExamples, model: AnsweringModel) -> _Encoded:
    """Token ids of a prompt's questions; what cannot be ranked as tokens is skipped from here on."""
    numbered, prompt.questions = prompt.questions, []
    questions: list[ChoiceQuestion] = []
    inputs = model.encode_inputs([prompted.inputs for _, prompted in numbered])
    texts = dict.fromkeys(choice for _, prompted in numbered for choice in prompted.choices or ())
    ids_of = dict(zip(texts, model.encode_targets([*texts]), strict=True))
    cut = 0
    for (index, prompted), own in zip(numbered, inputs, strict=True):
        choices = tuple(ids_of[choice] for choice in prompted.choices or ())
        new_tokens = max(map(len, choices), default=model.new_tokens)
        longest = min(MOST_INPUTS, model.longest_inputs(new_tokens))
        fault = _fault_of_tokens(choices, longest)
        if fault is not None:
            prompt.skipped.add(index, fault)
            continue
        cut += len(own) > longest
        prompt.questions.append((index, prompted))
        if choices:
            right = tuple(number for number, choice in enumerate(prompted.choices or ()) if choice in prompted.targets)
            questions.append(ChoiceQuestion(own[max(len(own) - longest, 0) :], choices, right))
    prompt.check_skipped()
    return _Encoded(prompt, questions, cut)


def _fault_of_tokens(choices: Sequence[Ids], longest: int) -> str | None:
    """Why choices cannot be ranked though their texts can, to be read after "example 7 has"; None where they can."""
    if longest < 1:
        return f"a choice of {max(map(len, choices))} tokens, which leaves no room for inputs in the model's rows"
    if any(len(choice) < 2 for choice in choices):  # its end token alone
        return "a choice that the tokenizer makes nothing of"
    if len({choice.tobytes() for choice in choices}) < len(choices):
        return "choices that are the same to the tokenizer"
    return None


def _answered(prompts: Sequence[_Encoded], model: AnsweringModel) -> list[PromptScore]:
    """The scores of the prompts of a task that have questions; all are asked at once."""
    rankings = iter(rank([question for prompt in prompts for question in prompt.choices], model.log_likelihoods))
    open_texts = [prompted.inputs for one in prompts if not one.choices for _, prompted in one.prompt.questions]
    written = iter(model.write(open_texts) if open_texts else [])
    scores = []
    for one in prompts:
        if one.choices:
            own = [next(rankings) for _ in one.choices]
            scores.append(PromptScore(one.prompt, _accuracies(own), one.cut))
        elif one.prompt.questions:
            texts = [next(written) for _ in one.prompt.questions]
            scores.append(PromptScore(one.prompt, _written_measures(one.prompt, texts), one.cut))
    return scores


def _accuracies(rankings: Sequence[Ranking]) -> dict[str, Measured]:
    return {
        ACCURACY: over_examples([float(ranking.is_right) for ranking in rankings]),
        ACCURACY_PER_TOKEN: over_examples([float(ranking.is_right_per_token) for ranking in rankings]),
    }


def _written_measures(prompt: PromptedExamples, texts: Sequence[str]) -> dict[str, Measured]:
    values = [
        measure(prompt.metrics, text, prompted.targets)
        for text, (_, prompted) in zip(texts, prompt.questions, strict=True)
    ]
    return {metric: over_examples([value[metric] for value in values]) for metric in prompt.metrics}


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
    return {
        "template": prompt.template.name,
        "id": prompt.template.id,
        "examples": score.examples,
        "left_out": prompt.left_out,
        "skipped": prompt.skipped.count,
        "first_skipped": prompt.skipped.first or None,
        "inputs_cut": score.cut,
        "metrics": {metric: _plain(measured) for metric, measured in score.measures.items()},
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
