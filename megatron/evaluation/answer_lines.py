"""Which examples of a split a prompt was right about, as one line of text: a digit for each example.

1 right, 0 wrong, - not asked; the place is the example's number. Lines of two runs can be laid over one another, by eye
or by a program, to see whether one answers what the other does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

RIGHT, WRONG, NOT_ASKED = "1", "0", "-"
LINE = re.compile(rf"[{RIGHT}{WRONG}{NOT_ASKED}]*")


def answer_line(numbers: Sequence[int], right: Sequence[bool]) -> str:
    """The line of answers to the examples of these numbers, which are different ones of a split."""
    line = [NOT_ASKED] * (max(numbers, default=-1) + 1)
    for number, is_right in zip(numbers, right, strict=True):
        line[number] = RIGHT if is_right else WRONG
    return "".join(line)


def answers_in(line: str) -> Mapping[int, bool]:
    """By the number of the example, of those that were asked."""
    return {number: mark == RIGHT for number, mark in enumerate(line) if mark != NOT_ASKED}
