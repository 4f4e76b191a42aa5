"""Rows of pyarrow and of the datasets library as examples: plain values, and the place of what cannot be one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from megatron.basics.errors import UserError
from megatron.prompting.template import Example

_MEND = "mend the data, or leave them out"


def rows_of_batch(batch: Any, before: int, place: str) -> Iterator[Example]:
    """The rows of a `pyarrow.RecordBatch`; before: how many of the file stand in front of it.

    Raises UserError with row and column where a value has no form in Python, e.g. text that is not UTF-8.
    """
    try:
        rows = batch.to_pylist()
    except Exception as error:  # of as many kinds as there are types
        raise UserError(f"{_place_of_fault(batch, before, place)} ({in_short(error)}); {_MEND}.") from error
    yield from map(plain_row, rows)


def rows_of_table(table: Iterable[Mapping[str, Any]], place: str) -> Iterator[Example]:
    """The rows of a `datasets.Dataset`; raises UserError with the row that the library cannot decode."""
    rows = iter(table)
    number = 1
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # what decodes texts, pictures and sound has no kind of error in common
            raise UserError(f"{place}: row {number} cannot be read ({in_short(error)}); {_MEND}.") from error
        yield plain_row(row)
        number += 1


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same with values that templates may print: pandas' times are Python's, to the microsecond, a UUID is text."""
    return {name: _plain(value) for name, value in row.items()}


def in_short(error: Exception) -> str:
    """An error that is not ours in one line, with its kind where it says nothing else that can be understood."""
    line = next(iter(str(error).splitlines()), "")
    return line if " " in line else f"{type(error).__name__} {line}".rstrip()


def _place_of_fault(batch: Any, before: int, place: str) -> str:
    for row in range(batch.num_rows):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column[row].as_py()
            except Exception:
                return f"{place}: the column {name} of row {before + row + 1} cannot be read"
    return f"{place}: a row behind row {before} cannot be read"


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is list:
        return [_plain(part) for part in value]
    if kind is dict:
        return {name: _plain(part) for name, part in value.items()}
    if kind is UUID:
        return str(value)
    if kind in (date, datetime, timedelta) or not isinstance(value, date | timedelta):
        return value
    if value != value:  # pandas' NaT, a date that is none
        return None
    if isinstance(value, datetime):
        return datetime.combine(value.date(), value.timetz())
    if isinstance(value, timedelta):
        return timedelta(value.days, value.seconds, value.microseconds)
    return date(value.year, value.month, value.day)
