"""What tools/evaluate.py does for --t0-eval: the questions before a model is loaded, the scores behind it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.evaluation.options import EvaluationOptions

if TYPE_CHECKING:
    from megatron.evaluation.answering_model import AnsweringModel
    from megatron.evaluation.prompted_tasks import PromptedTask

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
        """What is asked how often, in its order: ranks that differ in this would wait for one another."""
        return [
            f"{task.task.name} {prompt.template.name} {len(prompt.questions)}"
            for task in self.tasks
            for prompt in task.prompts
        ]


def read_questions(options: EvaluationOptions, *, is_main: bool) -> T0Questions:
    """Every example of every task through its templates; a bar where is_main. Raises UserError."""
    from megatron.basics.progress import progress
    from megatron.evaluation.prompted_tasks import prompted_tasks, tasks_named
    from megatron.prompting.data_sets import DataSets

    named = {name for name in options.t0_tasks if not Path(name).suffix}
    with progress("read examples", None, "example") if is_main else nullcontext() as bar:
        tasks, missing = prompted_tasks(
            tasks_named(options.t0_tasks),
            Path(str(options.templates)),
            DataSets(None if options.data_dir is None else Path(options.data_dir)),
            required=named,
            limit=options.limit,
            advance=bar.advance if bar else lambda _: None,
        )
    return T0Questions(tasks, missing, str(options.templates))


def answer(
    questions: T0Questions, model: AnsweringModel, limit: int | None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The entry `t0_eval` of the results. Raises UserError. May be a collective, as the model's functions are."""
    from megatron.evaluation.t0_eval import MOST_INPUTS, entry_of, score_tasks

    scores = score_tasks(questions.tasks, model, say)
    rule = f"{model.rule} {SUMS.format(most=MOST_INPUTS)}"
    return entry_of(scores, questions.missing, templates=questions.templates, scoring_rule=rule, limit=limit)


def say_on_standard_error(line: str) -> None:
    """A line beside the bars."""
    print(line, file=sys.stderr, flush=True)
