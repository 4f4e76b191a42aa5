"""Examples of OLMo's folders in the columns of the data sets that they were made from."""

from __future__ import annotations

import string
from collections.abc import Callable

from megatron.prompting.template import Example

ADDED = ("query", "choices", "gold", "index", "source")


def arc(document: Example) -> Example:
    """AI2 ARC and CommonsenseQA: `question`, `choices` and `answerKey`."""
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
        "label": int(document["choices"][_gold(document)] == "yes"),
    }


def hellaswag(document: Example) -> Example:
    """HellaSwag: `activity_label`, `ctx` and `ctx_a` with the whole context, an empty `ctx_b`, `endings` and `label`.

    Where the context was joined from its two parts does not show any more; lm-eval joins them again.
    """
    activity, _, context = document["query"].partition(": ")
    return {
        "activity_label": activity,
        "ctx_a": context,
        "ctx_b": "",
        "ctx": context,
        "endings": document["choices"],
        "label": str(_gold(document)),
    }


def as_it_was(document: Example) -> Example:
    """An example that has all its columns, and those that its requests were made with."""
    return {name: value for name, value in document.items() if name not in ADDED}


def super_glue_rte(example: Example) -> Example:
    """RTE of GLUE as SuperGLUE calls its sentences: `premise` and `hypothesis`; the labels are the same."""
    names = {"sentence1": "premise", "sentence2": "hypothesis"}
    return {names.get(name, name): value for name, value in example.items()}


# By the name of the task, lm-eval's where it has one; examples of other tasks stay as they are.
ORIGINAL_COLUMNS: dict[str, Callable[[Example], Example]] = {
    "arc_easy": arc,
    "arc_challenge": arc,
    "csqa": arc,
    "openbookqa": openbookqa,
    "boolq": boolq,
    "hellaswag": hellaswag,
    **dict.fromkeys(("copa", "piqa", "sciq", "socialiqa", "winogrande"), as_it_was),
}


def _question(document: Example) -> str:
    return str(document["query"]).removeprefix("Question: ").removesuffix("\nAnswer:")


def _lettered(document: Example) -> Example:
    letters = list(string.ascii_uppercase[: len(document["choices"])])
    return {"choices": {"text": document["choices"], "label": letters}, "answerKey": letters[_gold(document)]}


def _gold(document: Example) -> int:
    """Which choice is right. Raises ValueError where that is none of them; -1 would be the last one."""
    gold, choices = document["gold"], document["choices"]
    if type(gold) is not int or not 0 <= gold < len(choices):
        raise ValueError(f"gold is {gold!r}, and there are {len(choices)} choices")
    return gold
