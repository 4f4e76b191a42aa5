"""A prompt template, and what it makes of an example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Example = Mapping[str, Any]  # the columns of one row of a data set, as plain values
SEPARATOR = "|||"  # between inputs and targets, and between answer choices


@dataclass(frozen=True)
class Template:
    """One prompt for the examples of a data set, in promptsource's format (Bach et al. 2022).

    `jinja` renders to "inputs ||| target", and to nothing where the template does not apply to an example; each further
    "|||" opens one more target that is as good as the first. `answer_choices` renders to "a choice ||| a choice": it is
    None for a task without choices. `is_original_task` says that the prompt asks what the data set was made for.
    """

    data_set: str
    name: str
    jinja: str
    answer_choices: str | None
    is_original_task: bool
    choices_in_prompt: bool
    metrics: tuple[str, ...]
    id: str
    reference: str

    @property
    def title(self) -> str:
        """What an error calls it."""
        return f"template {self.name!r} of {self.data_set}"


@dataclass(frozen=True, slots=True)
class Prompted:
    """An example as a template words it: at least one target, and the choices of a task that has any.

    No part begins or ends with whitespace, as in T0's tasks: the tokens of inputs and target are joined, not the texts.
    """

    inputs: str
    targets: tuple[str, ...]
    choices: tuple[str, ...] | None


def fault_of_choices(prompted: Prompted) -> str | None:
    """Why the choices cannot be ranked, to be read after "example 7 has"; None where they can.

    Rank classification needs two different choices or more, none of them empty, with the target among them.
    """
    choices = prompted.choices
    if choices is None:
        return "no answer choices"
    if "" in choices:
        return f"an empty choice among {_listed(choices)}"
    if len(set(choices)) < len(choices):
        return f"choices that are not distinct: {_listed(choices)}"
    if len(choices) < 2:
        return f"only one choice: {_listed(choices)}"
    if not set(prompted.targets) & set(choices):
        return f"the target {short_repr(prompted.targets[0])}, which is not among the choices {_listed(choices)}"
    return None


def _listed(choices: tuple[str, ...]) -> str:
    shown = ", ".join(short_repr(choice) for choice in choices[:8])
    return shown + (f" and {len(choices) - 8} more" if len(choices) > 8 else "")


def short_repr(value: object) -> str:
    """A value as an error quotes it."""
    try:
        text = repr(value if not isinstance(value, str) or len(value) <= 60 else value[:57] + "...")
    except ValueError:  # of numbers that Python does not print, wherever they stand
        return f"of the type {type(value).__name__} with too many digits to print"
    return text if len(text) <= 100 or isinstance(value, str) else text[:97] + "..."
