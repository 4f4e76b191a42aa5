"""Whether the entry `t0_eval` of a results file has what reports read of it; files may come from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from megatron.evaluation.answer_lines import LINE
from megatron.evaluation.prompt_spread import NORMALISED
from megatron.evaluation.rank_classification import ACCURACY, ACCURACY_PER_TOKEN

Check = Callable[[Any], bool]
FAR = 1e6  # beyond any score, and within what a chart can draw


def damaged_parts(entry: Mapping[str, Any]) -> Iterator[str]:
    """Names of the parts that are not there or are something else than `entry_of` writes; none of an empty entry."""
    if entry:
        for name, is_right in PARTS.items():
            if not is_right(entry.get(name)):
                yield f"`{name}`"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_null(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and -FAR < value < FAR


def _is_number_or_null(value: Any) -> bool:
    return value is None or _is_number(value)


def _list_of(is_right: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(is_right, value))


def _by_name(is_right: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(is_right, value.values()))


def _record(**parts: Check) -> Check:
    """A mapping with at least these parts."""
    return lambda value: (
        isinstance(value, dict) and all(name in value and is_right(value[name]) for name, is_right in parts.items())
    )


def _are_answers(value: Any) -> bool:
    """Lines by metric; results of earlier versions have none."""
    return _by_name(lambda line: isinstance(line, str) and LINE.fullmatch(line) is not None)(value)


def _is_prompt(value: Any) -> bool:
    return _PROMPT(value) and _are_answers(value.get("right", {}))


def _is_spread(value: Any) -> bool:
    """Scores of prompts in their order, or a chart could not be drawn."""
    return _SPREAD(value) and value["min"] <= value["median"] <= value["max"]


def _is_task(value: Any) -> bool:
    """What is ranked has a random accuracy."""
    if not _TASK(value):
        return False
    return _is_number(value.get("random")) or not ("random" in value or ACCURACY in value["metrics"])


_SPREAD = _record(median=_is_number, min=_is_number, max=_is_number, stderr=_is_number_or_null, prompts=_is_count)
_MEASURED = _record(value=_is_number_or_null, stderr=_is_number_or_null)
_PROMPT = _record(
    template=_is_text,
    skipped=_is_count,
    first_skipped=_is_text_or_null,
    inputs_cut=_is_count,
    metrics=_by_name(_MEASURED),
)
_TASK = _record(
    data=_is_text,
    metrics=_by_name(_is_spread),
    prompts=_list_of(_is_prompt),
    prompts_without_questions=_list_of(_is_text),
    prompts_without_metrics=_list_of(_is_text),
)
PARTS: Mapping[str, Check] = {
    "scoring_rule": _is_text,
    "tasks": _by_name(_is_task),
    "missing": _by_name(_is_text),
    "mean": _record(
        data_sets=_list_of(_is_text),
        of=_is_count,
        random=_is_number_or_null,
        **dict.fromkeys((ACCURACY, ACCURACY_PER_TOKEN, NORMALISED), _MEASURED),
    ),
    "trained_on": lambda value: value is None or _list_of(_is_text)(value),
}
