"""YAML that strangers wrote: what is read is what stands there, once, and no more of it than a person could write.

YAML itself lets a key come twice, of which the last one holds, and lets 700 bytes stand for gigabytes, by aliases of
aliases. It makes numbers of any length, which Python computes in quadratic time or does not print. So a file's events
are looked through before anything is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from megatron.basics.errors import UserError

LARGEST = 1_000_000  # characters and nodes, what an alias stands for each time; promptsource's largest file has 16,722
LONGEST_NUMBER = 40  # characters
DEEPEST = 32  # lists and mappings in one another; the C of PyYAML knows no bound. promptsource's deepest has 5


def read_yaml(path: Path, what: str, tags: tuple[str, ...] = ()) -> Any:
    """The content of a file; mappings with one of `tags` are plain ones, every other tag of a file's own is refused.

    Raises UserError, "... cannot be read as {what}: ...", for what is no YAML, a key that comes twice, aliases that
    stand for too much, lists that are too deep, numbers that are too long.
    """
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} characters")
        loader = _loader(tags)
        _check(yaml.parse(text, loader))
        return yaml.load(text, loader)  # a SafeLoader with some tags more
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1} of " if where is not None else ""
        fault = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{line}{path} cannot be read as {what}: {fault}; mend the file.") from error
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        fault = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as {what}: {fault}; mend the file.") from error


@cache
def _loader(tags: tuple[str, ...]) -> Any:
    """PyYAML's safe loader, in C where it was built so (ten times faster), that knows some tags of mappings."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Its own class: constructors added to PyYAML's would hold for every other user of it."""

    for tag in tags:
        Loader.add_constructor(tag, lambda loader, node: loader.construct_mapping(node, deep=True))
    return Loader


@dataclass
class _Open:
    """A list or mapping of which the end is yet to come. before: what had been counted at its beginning."""

    is_mapping: bool
    anchor: str | None
    before: int
    keys: set[str] = field(default_factory=set)
    is_key_next: bool = True


def _check(events: Iterator[Any]) -> None:
    """Raise YAMLError, with its place, for what `read_yaml` refuses."""
    import yaml

    counted = 0
    sizes: dict[str, int] = {}  # by anchor
    open_nodes: list[_Open] = []
    for event in events:
        if isinstance(event, yaml.NodeEvent) and open_nodes and open_nodes[-1].is_mapping:
            _check_key(open_nodes[-1], event)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor is None or event.anchor not in sizes:
                _refuse(event, f"the alias {event.anchor} stands for nothing before it")
            counted += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > LONGEST_NUMBER and _is_number(event):
                _refuse(event, f"a number has more than {LONGEST_NUMBER} characters")
            size = 1 + len(event.value)
            counted += size
            if event.anchor is not None:
                sizes[event.anchor] = size
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append(_Open(isinstance(event, yaml.MappingStartEvent), event.anchor, counted))
            counted += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = open_nodes.pop()
            if closed.anchor is not None:
                sizes[closed.anchor] = counted - closed.before
        if len(open_nodes) > DEEPEST:
            _refuse(event, f"it has more than {DEEPEST} lists or mappings in one another")
        if counted > LARGEST:
            _refuse(event, f"with its aliases it has more than {LARGEST:,} characters")


def _is_number(scalar: Any) -> bool:
    """Whether a scalar would be one: by its tag, or, without quotes, by its form."""
    import yaml

    tag = scalar.tag
    if tag is None and scalar.implicit[0]:
        tag = yaml.SafeLoader("").resolve(yaml.ScalarNode, scalar.value, (True, False))
    return tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def _check_key(mapping: _Open, event: Any) -> None:
    """Every second node of a mapping is a key."""
    import yaml

    if mapping.is_key_next:
        if not isinstance(event, yaml.ScalarEvent):
            _refuse(event, "a key is not a text")
        if event.value in mapping.keys:
            _refuse(event, f"it gives {event.value[:40]!r} twice")
        mapping.keys.add(event.value)
    mapping.is_key_next = not mapping.is_key_next


def _refuse(event: Any, fault: str) -> NoReturn:
    import yaml

    raise yaml.MarkedYAMLError(problem=fault, problem_mark=event.start_mark)
