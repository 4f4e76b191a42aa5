"""What tools/evaluate.py does for --t0-eval: the questions before a model is loaded, the scores behind it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.evaluation.options import EvaluationOptions

if TYPE_CHECKING:
    from megatron.evaluation.answering_model import AnsweringModel
    from megatron.evaluation.encoded_prompts import EncodedTask
    from megatron.evaluation.prompted_tasks import PromptedExamples, PromptedTask

SUMS = (
    "A choice counts with the sum of its tokens' natural log-probabilities, its end token's among them, and is not "
    "normalised by its length; at most {most} tokens of inputs are read, the last ones."
)


@dataclass(frozen=True)
class T0Questions:
    """The tasks with their prompts, and those without data or templates with the reason."""

    tasks: list[PromptedTask]
    missing: dict[str, str]
    templates: str

    @property
    def outline(self) -> list[str]:
        """What is asked, in its order: ranks that differ in this would wait for one another."""
        return [
            f"{task.task.name} {prompt.template.name} {_digest(prompt)}"
            for task in self.tasks
            for prompt in task.prompts
        ]


def _digest(prompt: PromptedExamples) -> str:
    """Of the contents of all questions of a prompt."""
    digest = hashlib.blake2b(digest_size=16)
    for index, asked in prompt.questions:
        digest.update(json.dumps([index, asked.inputs, asked.targets, asked.choices]).encode())
    return digest.hexdigest()


def read_questions(options: EvaluationOptions, *, is_main: bool) -> T0Questions:
    """Every example of every task through its templates; a bar where is_main. Raises UserError."""
    from megatron.basics.progress import progress
    from megatron.evaluation.prompted_tasks import prompted_tasks, tasks_named
    from megatron.prompting.data_sets import DataSets

    wanted = tasks_named(options.t0_tasks)
    with progress("read examples", None, "example") if is_main else nullcontext() as bar:
        tasks, missing = prompted_tasks(
            wanted,
            Path(str(options.templates)),
            DataSets(None if options.data_dir is None else Path(options.data_dir)),
            required={task.name for task in wanted} if options.t0_tasks else (),
            limit=options.limit,
            advance=bar.advance if bar else lambda _: None,
        )
    return T0Questions(tasks, missing, str(options.templates))


def encode_questions(questions: T0Questions, model: AnsweringModel) -> list[EncodedTask]:
    """The questions as the model takes them, to be made before hours of other work. Raises UserError."""
    from megatron.evaluation.encoded_prompts import encode_tasks

    return encode_tasks(questions.tasks, model)


def answer(
    questions: T0Questions,
    encoded: Sequence[EncodedTask],
    model: AnsweringModel,
    limit: int | None,
    *,
    training: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """The entry `t0_eval` of the results. May be a collective, as the model's functions are.

    training: prefixes of the data sets that the model was trained on, None where they are not known.
    """
    from megatron.evaluation.encoded_prompts import MOST_INPUTS
    from megatron.evaluation.prompted_tasks import trained_among
    from megatron.evaluation.t0_entry import entry_of
    from megatron.evaluation.t0_eval import score_tasks

    scores = score_tasks(encoded, model, say)
    return entry_of(
        scores,
        questions.missing,
        templates=questions.templates,
        scoring_rule=f"{model.rule} {SUMS.format(most=MOST_INPUTS)}",
        limit=limit,
        trained_on=None if training is None else trained_among([one.task for one in questions.tasks], training),
    )


def say_on_standard_error(line: str) -> None:
    """A line beside the bars."""
    print(line, file=sys.stderr, flush=True)
