"""Colours for a terminal, and none for anything else."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TextIO

COLOURS = (36, 33, 35, 32, 34, 31)  # cyan, yellow, magenta, green, blue, red: readable on dark and on light
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Style:
    """Paints text by ANSI escapes where `is_coloured`; else gives it back as it is."""

    is_coloured: bool

    @classmethod
    def of(cls, stream: TextIO) -> Style:
        """Coloured on a terminal, unless the environment says NO_COLOR (no-color.org) or TERM=dumb."""
        wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(wanted and stream.isatty())

    def number(self, text: str, number: int) -> str:
        """In the colour of the number-th thing, counted from 0; the colours come round again."""
        return self._painted(text, COLOURS[number % len(COLOURS)])

    def strong(self, text: str) -> str:
        """Bold."""
        return self._painted(text, 1)

    def faint(self, text: str) -> str:
        """Dim."""
        return self._painted(text, 2)

    def _painted(self, text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.is_coloured and text.strip() else text
