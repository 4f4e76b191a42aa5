"""A template and an example make a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2.sandbox import SecurityError

from megatron.basics.errors import UserError
from megatron.basics.seeds import seed_for
from megatron.prompting.sandbox import MissingColumn, Sandbox, SourceFault
from megatron.prompting.template import SEPARATOR, Prompted, Template
from megatron.prompting.work_limit import TooMuchWork

Example = Mapping[str, Any]

# Stands for each bar of "|||" inside an example while a template renders, so that lengths and slices stay what they
# were: a character that Unicode keeps out of texts.
_BAR = "\ufdd0"
_PRINTED_BAR = repr(_BAR)[1:-1]  # as it stands in a list that a template prints
CHOICES_COLUMN = "answer_choices"


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
        self._draws = self._body.draws or (self._choices is not None and self._choices.draws)

    def render(self, example: Example, index: int) -> Prompted | None:
        """The prompt of an example, `index` being its number in the split; None where the template leaves it out.

        Left out is an example of which inputs or all targets are empty. The example is not changed. Raises UserError
        with template and example for a missing column, an operation that fails, and work without end.
        """
        seed = seed_for(self._seed, "choice", self.template.data_set, self.template.id, index) if self._draws else 0
        self._sandbox.begin(seed)
        try:
            return self._render(example)
        except MissingColumn as error:
            columns = ", ".join(map(str, example))
            fault = f"{self.template.title} names the column {error.message}, example {index} has {columns}."
            raise UserError(fault) from error
        except (TooMuchWork, SecurityError) as error:
            raise UserError(f"{self.template.title}, stopped at example {index}: {error}.") from error
        except RecursionError as error:
            raise UserError(
                f"{self.template.title}, stopped at example {index}: it calls itself without end."
            ) from error
        except Exception as error:  # whatever a stranger's template makes of a stranger's data
            fault = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise UserError(f"{self.template.title} fails on example {index}: {fault}.") from error

    def _render(self, example: Example) -> Prompted | None:
        values = {name.replace("-", "_"): _protected(value) for name, value in example.items()}
        if CHOICES_COLUMN in values:
            raise ValueError(
                f"the column {CHOICES_COLUMN} has the name that templates call their choices by; rename it"
            )
        choices = None
        if self._choices is not None:
            choices = [choice.strip() for choice in self._choices.render(values).split(SEPARATOR)]
        values[CHOICES_COLUMN] = None if choices is None else [*choices]  # a template may change its list
        inputs, *rest = self._body.render(values).split(SEPARATOR)
        targets = tuple(filter(None, map(_shown, rest)))
        inputs = _shown(inputs)
        if not inputs or not targets:
            return None
        return Prompted(inputs, targets, None if choices is None else tuple(map(_shown, choices)))


def _protected(value: Any) -> Any:
    """A copy of a value, down to its parts, in which no text has the separator."""
    kind = type(value)
    if kind is str:
        return value.replace(SEPARATOR, 3 * _BAR) if SEPARATOR in value else value
    if kind is list or kind is tuple:
        return [_protected(part) for part in value]
    if kind is dict:
        return {key: _protected(part) for key, part in value.items()}
    return value


def _shown(part: str) -> str:
    return part.replace(_BAR, "|").replace(_PRINTED_BAR, "|").strip()
