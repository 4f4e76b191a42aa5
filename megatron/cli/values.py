"""From the text of a command line, or a value of YAML or JSON, to the type that a field of Options declares."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any

from megatron.basics.option import Options

LARGEST_WHOLE_NUMBER = 2**63 - 1  # what every consumer (numpy, torch, checkpoints) can hold
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
SWITCH_WORDS = {"true": True, "false": False}


class WrongValue(Exception):
    """A value that does not fit its field; the message is the end of a sentence that begins with the flag's name."""


@dataclass(frozen=True)
class FieldType:
    """What an annotation asks for: `scalar` is bool, int, float or str; `is_list`: several of them."""

    scalar: type
    is_list: bool = False
    is_optional: bool = False


def field_types(options_class: type[Options]) -> dict[str, FieldType]:
    """The type of each field of a section, by name."""
    hints = typing.get_type_hints(options_class)
    return {field.name: _field_type(hints[field.name]) for field in dataclasses.fields(options_class)}


def _field_type(annotation: Any) -> FieldType:
    parts = typing.get_args(annotation)
    if isinstance(annotation, types.UnionType):
        (inner,) = [part for part in parts if part is not types.NoneType]
        return dataclasses.replace(_field_type(inner), is_optional=True)
    if typing.get_origin(annotation) is list:
        return FieldType(parts[0], is_list=True)
    assert annotation in WORDS, f"options cannot hold {annotation}"
    return FieldType(annotation)


def from_texts(wanted: FieldType, texts: list[str]) -> Any:
    """The value of a flag that was followed by `texts` on the command line. Raises WrongValue."""
    if wanted.scalar is bool:
        return _switch_from(texts)
    if not texts:
        raise WrongValue("needs a value")
    if wanted.is_list:
        return [_scalar_from(wanted.scalar, text) for text in texts]
    if len(texts) > 1:
        raise WrongValue(f"takes one value, not {len(texts)}: {' '.join(texts)}")
    return _scalar_from(wanted.scalar, texts[0])


def from_native(wanted: FieldType, value: Any) -> Any:
    """A value read from YAML or JSON, as the field wants it. Raises WrongValue.

    Text that reads as the wanted number is taken: YAML 1.1 has 3e-4, without a dot, as text. One value may stand for a
    list of one.
    """
    if value is None and wanted.is_optional:
        return None
    if wanted.is_list:
        items = value if isinstance(value, list) else [value]
        return [_native_scalar(wanted.scalar, item) for item in items]
    return _native_scalar(wanted.scalar, value)


def _native_scalar(scalar: type, value: Any) -> Any:
    if isinstance(value, bool) and scalar is bool:
        return value
    if isinstance(value, int) and abs(value) > LARGEST_WHOLE_NUMBER:
        raise WrongValue(f"is too large; use {LARGEST_WHOLE_NUMBER} or less")
    if isinstance(value, (str, int, float)) and not isinstance(value, bool) and scalar is not bool:
        return _scalar_from(scalar, str(value))
    shown = (
        "nothing" if value is None else str(value) if isinstance(value, bool | float | str) else type(value).__name__
    )
    raise WrongValue(f"must be {WORDS[scalar]}, not {shown[:80]}")


def _switch_from(texts: list[str]) -> bool:
    if not texts:
        return True
    if len(texts) == 1 and texts[0].lower() in SWITCH_WORDS:
        return SWITCH_WORDS[texts[0].lower()]
    raise WrongValue(f"is a switch and takes no value, not {' '.join(texts)}")


def _scalar_from(scalar: type, text: str) -> Any:
    if not text or "\0" in text:
        raise WrongValue("needs a value")
    if scalar is str:
        return text
    try:
        value = scalar(text)
    except ValueError:
        raise WrongValue(f"must be {WORDS[scalar]}, not {text[:80]}") from None
    if scalar is int and abs(value) > LARGEST_WHOLE_NUMBER:
        raise WrongValue(f"is too large; use {LARGEST_WHOLE_NUMBER} or less")
    return value
