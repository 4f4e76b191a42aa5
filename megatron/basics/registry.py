"""Tables from a name to `module:attribute`, loaded only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from megatron.basics.errors import UserError, nearest


class Registry:
    """An explicit table of the implementations of one concept.

    Registry("--objective", {"full_lm": "megatron.objectives.full_lm:FullLM"})["full_lm"] imports the module and
    returns the class. An unknown name is a UserError that names the flag, the nearest name and all known names.
    """

    def __init__(self, flag: str, entries: Mapping[str, str]) -> None:
        self.flag = flag
        self.entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        module, attribute = self.location(name).split(":")
        return getattr(importlib.import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def location(self, name: str) -> str:
        """`module:attribute` of a name, without importing it."""
        if name not in self.entries:
            raise UserError(f"{self.flag} {name} is not known;{nearest(name, self)} Known: {', '.join(self)}.")
        return self.entries[name]
