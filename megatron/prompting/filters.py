"""The filters that templates may use: Jinja's harmless ones with their work counted, and promptsource's three.

Left out of Jinja's own are those that reach attributes by name (attr), make markup, pad to any width, or search with
patterns that take for ever on the wrong text. None of promptsource's 2,085 templates uses one of those.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

from jinja2 import Environment, pass_environment
from jinja2.filters import FILTERS, make_attrgetter

from megatron.basics.draws import Draws
from megatron.prompting.work_limit import PART, WorkLimit

FROM_JINJA = (
    "abs capitalize count d default first float int items last length list lower map max min reject rejectattr reverse "
    "select selectattr sort string title trim truncate unique upper wordcount"
)
PRINTING = "capitalize lower string title trim upper wordcount"  # those that make a text of whatever they are given
MOST_DECIMALS = 100
# One field of a %-format whose width and precision have at most two digits; `*` would take them from the values.
_SAFE_FORMAT = re.compile(r"(?:[^%]|%%|%(?:\(\w{1,40}\))?[-+ #0]{0,5}\d{0,2}(?:\.\d{0,2})?[a-zA-Z])*")
_FIELD_NAME = re.compile(r"%\((\w+)\)")


def filters_for(work: WorkLimit, draws: Callable[[], Draws]) -> dict[str, Callable[..., Any]]:
    """The filters by name; they charge `work`, and `choice` and `random` take from `draws()`."""
    own = _OwnFilters(work, draws)
    filters = {name: _counted(FILTERS[name], work, name in PRINTING.split()) for name in FROM_JINJA.split()}
    return filters | {
        "choice": own.choice,
        "random": own.choice,  # Jinja's own would be another one each time
        "most_frequent": own.most_frequent,
        "highlight": own.highlight,
        "join": own.join,
        "replace": own.replace,
        "format": own.format,
        "round": own.round,
    }


class _OwnFilters:
    """Filters of promptsource, and those of Jinja whose result may be much larger than what they are given."""

    def __init__(self, work: WorkLimit, draws: Callable[[], Draws]) -> None:
        self._work = work
        self._draws = draws

    def choice(self, values: Iterable[Any]) -> Any:
        """One of the values: a function of the seed, the template and the example's number."""
        known = values if isinstance(values, list | tuple | range | str) else [*self._work.counted(values)]
        if not len(known):
            raise ValueError("choice has nothing to choose from")
        return known[self._draws().below(len(known))]

    def most_frequent(self, values: Iterable[Any]) -> list[Any] | None:
        """Those that occur most often, in the order in which they come first; None where there are no values."""
        counts = Counter(self._work.counted(values))
        return [value for value, count in counts.items() if count == max(counts.values())] if counts else None

    def highlight(self, value: str) -> str:
        """A text as promptsource marks it on its pages."""
        return "<span style='color: #F08080'>" + self._work.text(value) + "</span>"

    @pass_environment
    def join(self, environment: Environment, values: Iterable[Any], d: str = "", attribute: Any = None) -> str:
        """The texts of the values, or of one attribute of each, with `d` between them."""
        if attribute is not None:
            values = map(make_attrgetter(environment, attribute), values)
        return joined(self._work, d, values)

    def replace(self, value: Any, old: Any, new: Any, count: int = -1) -> str:
        """The text with `new` wherever `old` was, or at the first `count` places."""
        text, old, new = (self._work.text(part) for part in (value, old, new))
        return replaced(self._work, text, old, new, count)

    def format(self, pattern: str, *values: Any, **named: Any) -> str:
        """`pattern % values`."""
        return formatted(self._work, pattern, named or values)

    def round(self, value: float, precision: int = 0, method: str = "common") -> Any:
        """As Jinja has it, with at most 100 decimals."""
        if abs(precision) > MOST_DECIMALS:
            raise ValueError(f"round takes at most {MOST_DECIMALS} decimals")
        return FILTERS["round"](value, precision, method)


def joined(work: WorkLimit, between: str, values: Iterable[Any]) -> str:
    """The texts of the values with `between` between them."""
    texts = [work.text(value) for value in work.counted(values)]
    work.charge(sum(map(len, texts)) + len(texts) * len(between))
    return between.join(texts)


def replaced(work: WorkLimit, text: str, old: str, new: str, count: int = -1) -> str:
    """`text.replace(old, new, count)`."""
    work.charge(len(text) + text.count(old) * len(new))
    return text.replace(old, new, count)


def formatted(work: WorkLimit, pattern: str, values: Any) -> str:
    """`pattern % values`, where no field is wider than 99 characters or what it is given."""
    if not _SAFE_FORMAT.fullmatch(pattern):
        raise ValueError(f"the format {pattern[:40]!r} is not taken: widths and precisions have at most two digits")
    work.charge(100 * len(pattern))
    fields = values if isinstance(values, tuple) else (values,)
    if isinstance(values, dict):  # a field of a name may come again and again
        fields += tuple(values[name] for name in _FIELD_NAME.findall(pattern) if name in values)
    for value in fields:
        work.charge(len(work.text(value)))
    return pattern % values


def _counted(function: Callable[..., Any], work: WorkLimit, prints: bool) -> Callable[..., Any]:
    """A filter of Jinja that charges what goes in and what comes out, lazy results as they are taken."""
    position = 1 if hasattr(function, "jinja_pass_arg") else 0  # what Jinja hands it first is not the value

    @wraps(function)
    def filter_with_limit(*arguments: Any, **named: Any) -> Any:
        if prints:
            text = work.text(arguments[position])
            work.charge(len(text))
            arguments = (*arguments[:position], text, *arguments[position + 1 :])
        else:
            work.charge_value(arguments[position])
        result = function(*arguments, **named)
        if isinstance(result, list):
            work.charge(PART * len(result))
        return work.counted(result) if isinstance(result, Iterator) else result

    return filter_with_limit
