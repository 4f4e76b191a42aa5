"""How much a template may do for one example, counted in characters: every machine stops it at the same place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

# A second of Jinja or less. The longest articles of T0's training sets are some 10^5 characters; a template that copies
# one a hundred times is at fault.
LIMIT = 10_000_000
STEP = 64  # what a call or a turn of a loop costs besides the characters it handles
PART = 8  # what an element of a list costs; STEP // 2 where it is computed when it is asked for


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

    def charge_value(self, value: Any) -> None:
        """As many characters as a text has, and as its parts have where it is a container, each as often as it occurs.

        A list that holds another one twice, and that one a third twice, is small in memory and endless when printed.
        """
        kind = type(value)
        if kind is str:
            self.charge(len(value))
        elif kind is list or kind is tuple:
            self.charge(STEP + PART * len(value))
            for part in value:
                self.charge_value(part)
        elif kind is dict:
            self.charge(STEP + PART * len(value))
            for key, part in value.items():
                self.charge_value(key)
                self.charge_value(part)
        elif kind is range:
            self.charge(PART * len(value))

    def counted(self, values: Iterable[Any], each: int = STEP // 2) -> Iterator[Any]:
        """The same values, each charged when it is taken."""
        for value in values:
            self.charge(each)
            yield value

    def text(self, value: Any) -> str:
        """`str(value)`, charged first where it is a container."""
        if type(value) is not str:
            self.charge_value(value)
            value = str(value)
        return value
