"""Options of a component: frozen dataclasses that check themselves and become command-line flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from megatron.basics.errors import UserError, nearest


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    metavar: str | None = None,
) -> Any:
    """A field of an Options class.

    The flag is the field's name with dashes. `help` says what it does and its unit. Bounds are inclusive, `above` is
    an exclusive lower bound; None always passes (it means: not set).
    """
    metadata = {
        "help": help,
        "choices": tuple(choices) if choices else None,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "metavar": metavar,
    }
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(field_name: str) -> str:
    """`hidden_size` -> `--hidden-size`."""
    return "--" + field_name.replace("_", "-")


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The value that a field has when its flag is not given."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all sections: construction fails with every fault of the section at once."""

    group: ClassVar[str] = ""  # the heading of the section in --help

    def __post_init__(self) -> None:
        faults = [*self._bound_faults()]
        if not faults:  # a rule may rely on every field being within its own bounds
            faults += self.rules()
        if faults:
            raise UserError(*faults)

    def rules(self) -> Iterator[str]:
        """Faults that join several fields of this section, one sentence each."""
        yield from ()

    def without_effect(self, names: Sequence[str], when: str) -> Iterator[str]:
        """A sentence for each of these fields that is not at its default though it counts for nothing `when` that is.

        when: the end of the sentence, e.g. "without --fp16".
        """
        for field in dataclasses.fields(self):
            if field.name in names and getattr(self, field.name) != default_of(field):
                yield f"{flag_of(field.name)} has no effect {when}; leave it out."

    def _bound_faults(self) -> Iterator[str]:
        for field in dataclasses.fields(self):
            yield from bound_faults(field, getattr(self, field.name))


def bound_faults(field: dataclasses.Field[Any], value: Any) -> Iterator[str]:
    """Faults of one value of a field, seen alone: not one of the choices, out of bounds, not finite."""
    if value is None or not field.metadata:
        return
    flag, bounds = flag_of(field.name), field.metadata
    choices = bounds["choices"]
    for item in value if isinstance(value, list) else [value]:
        if choices and item not in choices:
            yield f"{flag} {item} is not known;{nearest(str(item), choices)} Known: {', '.join(choices)}."
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if not abs(value) < float("inf"):  # NaN and infinity fail every comparison on purpose
        yield f"{flag} {value} must be a finite number."
    elif bounds["minimum"] is not None and value < bounds["minimum"]:
        yield f"{flag} {value} is too small; use {bounds['minimum']} or more."
    elif bounds["above"] is not None and value <= bounds["above"]:
        yield f"{flag} {value} is too small; use more than {bounds['above']}."
    elif bounds["maximum"] is not None and value > bounds["maximum"]:
        yield f"{flag} {value} is too large; use {bounds['maximum']} or less."
