"""Examples of a task, looked through before anything is scored: lm-eval itself tries the first one alone.

A question whose answer is none of its choices would count as wrong without a word, as hidden answers do, and what is no
text would end the evaluation where it is reached.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import lm_eval.utils
from lm_eval.api.task import ConfigurableTask

from megatron.basics.errors import UserError

SHOWN = 60  # characters of a value, in a sentence
TEMPLATES_KEPT = 1024


def check_examples(task: Any, place: str) -> None:
    """Raise UserError for the first example that `task` cannot use.

    task: of lm-eval, loaded. place: where its data comes from. Examples have the numbers of their lines, but where the
    task sorts them or leaves some out.
    """
    with templates_compiled_once():
        for number, example in enumerate(task.eval_docs, start=1):
            try:
                fault = _fault(task, example)
            except Exception as error:  # templates and functions of a task raise anything
                fault = f"cannot be put into words ({type(error).__name__}: {error})"
            if fault:
                raise UserError(
                    f"--tasks {task.config.task}: example {number} of {place} {fault}; mend it or remove it."
                )


@contextlib.contextmanager
def templates_compiled_once() -> Iterator[None]:
    """lm-eval compiles a task's templates anew for every example, which takes far longer than to fill them in."""
    environment = lm_eval.utils.env
    vars(environment)["from_string"] = functools.lru_cache(TEMPLATES_KEPT)(environment.from_string)
    try:
        yield
    finally:
        del vars(environment)["from_string"]


def _fault(task: Any, example: Any) -> str | None:
    """What is wrong with an example, or None."""
    if not isinstance(task, ConfigurableTask):
        return None
    text, target = task.doc_to_text(example), task.doc_to_target(example)
    if task.OUTPUT_TYPE == "multiple_choice":
        return _fault_of_choices(task, text, target, task.doc_to_choice(example))
    if task.OUTPUT_TYPE != "loglikelihood_rolling" and not isinstance(text, str):
        return f"has the question {_shown(text)}, which is no text"
    if task.OUTPUT_TYPE in ("loglikelihood", "loglikelihood_rolling") and not isinstance(target, str):
        return f"has the answer {_shown(target)}, which is no text"
    return None


def _fault_of_choices(task: Any, text: Any, target: Any, choices: Any) -> str | None:
    if not isinstance(choices, list | tuple) or not choices or not all(isinstance(one, str) for one in choices):
        return f"has the choices {_shown(choices)}, which are no list of texts"
    if task.multiple_input:  # as WinoGrande: contexts to choose from, and the number of the right one for a question
        return None if _is_number_of(text, choices) else _no_choice(text)
    if not isinstance(text, str):
        return f"has the question {_shown(text)}, which is no text"
    if task.config.process_results is not None or type(task).process_results is not ConfigurableTask.process_results:
        return None
    if isinstance(target, list) != bool(task.multiple_target):
        return f"has the answer {_shown(target)}, which is of another kind than that of the first example"
    if isinstance(target, list):
        is_there = bool(target) and all(_is_number_of(one, choices) for one in target)
    else:
        is_there = target in choices if isinstance(target, str) else _is_number_of(target, choices)
    return None if is_there else _no_choice(target)


def _is_number_of(answer: Any, choices: Sequence[str]) -> bool:
    return isinstance(answer, int) and 0 <= answer < len(choices)


def _no_choice(answer: Any) -> str:
    return f"has the answer {_shown(answer)}, which is none of its choices"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
