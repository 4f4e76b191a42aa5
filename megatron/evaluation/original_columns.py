"""Examples of OLMo's in-loop evaluation in the columns of the data sets that they were made from."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

Example = dict[str, Any]


def arc(document: Example) -> Example:
    """AI2 ARC: `question`, `choices` and `answerKey`."""
    return {"id": document["id"], "question": _question(document), **_lettered(document)}


def openbookqa(document: Example) -> Example:
    """OpenBookQA: `question_stem`, `choices` and `answerKey`."""
    return {"id": document["id"], "question_stem": _question(document), **_lettered(document)}


def boolq(document: Example) -> Example:
    """BoolQ as SuperGLUE has it: `passage` with its title, `question` without its mark, and `label`, 1 for yes."""
    passage, _, question = document["query"].removesuffix("\nAnswer:").rpartition("\nQuestion: ")
    return {
        "passage": passage,
        "question": question.removesuffix("?"),
        "label": int(document["choices"][document["gold"]] == "yes"),
    }


def hellaswag(document: Example) -> Example:
    """HellaSwag: `activity_label`, `ctx_a` with the whole context, an empty `ctx_b`, `endings` and `label`.

    Where the context was joined from its two parts does not show any more; lm-eval joins them again.
    """
    activity, _, context = document["query"].partition(": ")
    return {
        "activity_label": activity,
        "ctx_a": context,
        "ctx_b": "",
        "endings": document["choices"],
        "label": str(document["gold"]),
    }


# By lm-eval's name of the task; examples of the others have their columns as they were.
ORIGINAL_COLUMNS: dict[str, Callable[[Example], Example]] = {
    "arc_easy": arc,
    "arc_challenge": arc,
    "openbookqa": openbookqa,
    "boolq": boolq,
    "hellaswag": hellaswag,
}


def _question(document: Example) -> str:
    return str(document["query"]).removeprefix("Question: ").removesuffix("\nAnswer:")


def _lettered(document: Example) -> Example:
    letters = list(string.ascii_uppercase[: len(document["choices"])])
    return {"choices": {"text": document["choices"], "label": letters}, "answerKey": letters[document["gold"]]}
