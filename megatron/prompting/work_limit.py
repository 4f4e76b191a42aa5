"""How much a template may do for one example, counted in characters: every machine stops it at the same place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from jinja2 import Undefined
from jinja2.sandbox import SecurityError

# A second of Jinja or less. The longest articles of T0's training sets are some 10^5 characters; a template that copies
# one a hundred times is at fault.
LIMIT = 10_000_000
STEP = 64  # what a call or a turn of a loop costs besides the characters it handles
PART = 8  # what an element of a list costs; STEP // 2 where it is computed when it is asked for
BITS_OF_A_DIGIT = 3
VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
# What else has a text, which is the same each time: that of a function, for example, is its address.
PLAIN = (bool, float, type(None), date, datetime, time, timedelta, Decimal)


class TooMuchWork(Exception):
    """A template was stopped; its text can be read after the template's name."""


class WorkLimit:
    """What is left of the work for the example at hand.

    Sizes are charged before they are allocated, so that a template that doubles a text ends with an error and not with
    the memory.
    """

    def __init__(self) -> None:
        self.left = LIMIT

    def begin(self) -> None:
        """The next example."""
        self.left = LIMIT

    def charge(self, amount: int) -> None:
        """Take `amount` characters off; raises TooMuchWork when there are not as many."""
        self.left -= amount
        if self.left < 0:
            raise TooMuchWork(f"does more than {LIMIT:,} characters of work for one example")

    def charge_value(self, value: Any, is_printed: bool = False) -> None:
        """As many characters as a text has, and as its parts have where it is a container, each as often as it occurs.

        A list that holds another one twice, and that one a third twice, is small in memory and endless when printed.
        Raises SecurityError for what is to be printed and is no data.
        """
        kind = type(value)
        if kind is str:
            self.charge(len(value))
        elif kind is list or kind is tuple or kind in VIEWS:
            self.charge(STEP + PART * len(value))
            for part in value:
                self.charge_value(part, is_printed)
        elif kind is dict:
            self.charge(STEP + PART * len(value))
            for key, part in value.items():
                self.charge_value(key, is_printed)
                self.charge_value(part, is_printed)
        elif kind is int:
            self.charge(value.bit_length() // BITS_OF_A_DIGIT)
        elif kind is bytes:
            self.charge(len(value))
        elif kind is range:
            self.charge(PART * len(value))
        elif is_printed and kind not in PLAIN and not isinstance(value, Undefined):
            raise SecurityError(f"prints a {kind.__name__}, which is no data; lists print what filters make")

    def counted(self, values: Iterable[Any], each: int = STEP // 2) -> Iterator[Any]:
        """The same values, each charged when it is taken."""
        for value in values:
            self.charge(each)
            yield value

    def text(self, value: Any) -> str:
        """`str(value)`, charged first where it is a container. Raises SecurityError for what is no data."""
        if type(value) is not str:
            self.charge_value(value, is_printed=True)
            value = str(value)
        return value
