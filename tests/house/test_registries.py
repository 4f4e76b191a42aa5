"""Every entry of every table imports, is documented, and says where it comes from."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator

import pytest

from megatron.basics.registry import Registry
from tests.house.sources import PACKAGE, dotted, name_of, product_files, tree_of

# Tables of methods that somebody published: their entries name the source.
PUBLISHED = {"architectures", "objectives"}
SOURCE = re.compile(r"\b(19|20)\d\d\b|section|PyTorch|torch|Megatron", re.IGNORECASE)


def tables() -> Iterator[tuple[str, Registry]]:
    """`megatron.loop.hooks.registry` and its table, for every module-level Registry of the package."""
    for path in product_files():
        if not path.is_relative_to(PACKAGE) or path.is_relative_to(PACKAGE / "basics"):
            continue
        for node in tree_of(path).body:
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if isinstance(value, ast.Call) and dotted(value.func) == "Registry":
                module = name_of(path).removesuffix(".py").replace("/", ".")
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                yield module, getattr(importlib.import_module(module), dotted(target))


ENTRIES = [(module, name, table) for module, table in tables() for name in table]


def test_there_are_tables() -> None:
    packages = {module.rsplit(".", 1)[0] for module, _, _ in ENTRIES}
    assert {"megatron.architectures", "megatron.objectives", "megatron.attention", "megatron.loop.hooks"} <= packages


@pytest.mark.parametrize(("module", "name", "table"), ENTRIES, ids=[f"{row[0]}:{row[1]}" for row in ENTRIES])
def test_an_entry_imports_and_is_documented(module: str, name: str, table: Registry) -> None:
    location, attribute = table.location(name).split(":")
    entry = table[name]
    assert inspect.getdoc(entry), f"{location}:{attribute} has no docstring"
    if module.split(".")[1] in PUBLISHED:
        text = f"{importlib.import_module(location).__doc__}\n{inspect.getdoc(entry)}"
        assert SOURCE.search(text), f"{location}:{attribute} names no source"


@pytest.mark.parametrize(("module", "name", "table"), ENTRIES, ids=[f"{row[0]}:{row[1]}" for row in ENTRIES])
def test_an_entry_has_a_test_that_names_it(module: str, name: str, table: Registry) -> None:
    location, attribute = table.location(name).split(":")
    tests = (PACKAGE.parent / "tests").rglob("*.py")
    needles = (attribute, location, f'"{name}"')
    assert any(needle in path.read_text(encoding="utf-8") for path in tests for needle in needles), location
