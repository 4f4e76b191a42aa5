"""A template and an example make a prompt."""

from __future__ import annotations

from functools import partial
from typing import Any

from jinja2.sandbox import SecurityError

from megatron.basics.errors import UserError
from megatron.basics.seeds import seed_for
from megatron.prompting.sandbox import MissingColumn, Sandbox, SourceFault
from megatron.prompting.separators import MARKED_BAR, MARKED_SEPARATOR
from megatron.prompting.template import Example, Prompted, Template
from megatron.prompting.work_limit import TooMuchWork

CHOICES_COLUMN = "answer_choices"
LONGEST_FAULT = 300  # characters of what Python says of a template's operation, which may quote a whole text


class Renderer:
    """Renders one template again and again; compiled once. Not for several threads at once.

    The filter `choice` draws from (seed, data set, template, number of the example), so that a data set prepared twice,
    in any number of processes, is the same. The texts are promptsource's but for two things: a column that is not there
    is an error and not an empty text, and values are never shortened (promptsource cuts each at 2,048 characters unless
    told otherwise): rows are cut by tokens, where all of them are known.
    """

    def __init__(self, template: Template, seed: int = 1234) -> None:
        self.template = template
        self._seed = seed
        self._sandbox = Sandbox()
        try:
            self._body = self._sandbox.source(template.jinja)
            self._choices = None if template.answer_choices is None else self._sandbox.source(template.answer_choices)
        except SourceFault as fault:
            raise UserError(f"{template.title}: {fault}.") from fault

    def render(self, example: Example, index: int) -> Prompted | None:
        """The prompt of an example, `index` being its number in the split; None where the template leaves it out.

        Left out is an example of which inputs or all targets are empty. The example is not changed. Raises UserError
        with template and example for a missing column, an operation that fails, and work without end.
        """
        template = self.template
        self._sandbox.begin(partial(seed_for, self._seed, "choice", template.data_set, template.id, index))
        try:
            return self._render(example)
        except MissingColumn as error:
            columns = ", ".join(map(str, example))
            fault = f"{template.title} names the column {error.message}, example {index} has {columns}."
            raise UserError(fault) from error
        except (TooMuchWork, SecurityError) as error:
            raise UserError(f"{template.title}, stopped at example {index}: {error}.") from error
        except RecursionError as error:
            raise UserError(f"{template.title}, stopped at example {index}: it calls itself without end.") from error
        except Exception as error:  # whatever a stranger's template makes of a stranger's data
            fault = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            fault = fault if len(fault) <= LONGEST_FAULT else fault[:LONGEST_FAULT] + "..."
            raise UserError(f"{template.title} fails on example {index}: {fault}.") from error

    def _render(self, example: Example) -> Prompted | None:
        values = {name.replace("-", "_"): _own_copy(value) for name, value in example.items()}
        if len(values) < len(example):
            names = [name.replace("-", "_") for name in example]
            twin = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two columns are {twin} in templates, where hyphens are underscores; rename one")
        if CHOICES_COLUMN in values:
            raise ValueError(
                f"the column {CHOICES_COLUMN} has the name that templates call their choices by; rename it"
            )
        choices = None
        if self._choices is not None:
            choices = [choice.strip() for choice in self._choices(values).split(MARKED_SEPARATOR)]
        values[CHOICES_COLUMN] = None if choices is None else [*choices]  # a template may change its list
        inputs, *rest = self._body(values).split(MARKED_SEPARATOR)
        targets = tuple(filter(None, map(_shown, rest)))
        inputs = _shown(inputs)
        if not inputs or not targets:
            return None
        return Prompted(inputs, targets, None if choices is None else tuple(map(_shown, choices)))


def _own_copy(value: Any) -> Any:
    """A copy of a value, down to its parts, which a template may change and in which no text has a mark."""
    kind = type(value)
    if kind is str:
        return value.replace(MARKED_BAR, "\ufffd") if MARKED_BAR in value else value
    if kind is list or kind is tuple:
        return [_own_copy(part) for part in value]
    if kind is dict:
        return {_own_copy(key): _own_copy(part) for key, part in value.items()}
    return value


def _shown(part: str) -> str:
    return part.replace(MARKED_BAR, "|").strip()
