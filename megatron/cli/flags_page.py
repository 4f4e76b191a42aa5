"""docs/flags.md, made from the options: `python -m megatron.cli.flags_page`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.option import Options, default_of, flag_of
from megatron.cli.run_config import SECTIONS
from megatron.cli.values import WORDS, FieldType, field_types

PAGE = Path(__file__).resolve().parents[2] / "docs" / "flags.md"
INTRODUCTION = """\
# Flags of the pretraining commands

Made by `python -m megatron.cli.flags_page` from the options in `megatron/*/options.py`; a test compares them.

Every flag can also stand in the YAML file of `--config FILE`, as a line `flag_name: value`; the command line wins over
the file. Flags are never abbreviated. `--objective NAME` says what the model learns to predict; each script's `--help`
lists its objectives. Exit codes: 0 done, 2 wrong use, 75 stopped by a signal after saving (start the same command again
to go on).
"""


def flags_page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *(_section(options_class) for options_class in SECTIONS.values())])


def write_flags_page(page: Path = PAGE) -> None:
    """Write it, atomically."""
    with atomic_writer(page, "w") as file:
        file.write(flags_page())


def _section(options_class: type[Options]) -> str:
    types = field_types(options_class)
    rows = [_row(field, types[field.name]) for field in dataclasses.fields(options_class)]
    heading = options_class.group[0].upper() + options_class.group[1:]
    table = ["| flag | value | default | what it does |", "|---|---|---|---|", *rows]
    return "\n".join([f"## {heading}", "", str(options_class.__doc__).splitlines()[0], "", *table, ""])


def _row(field: dataclasses.Field[object], wanted: FieldType) -> str:
    default = default_of(field)
    shown = "" if default is None or default is False or default == [] else f"`{default}`"
    return f"| `{flag_of(field.name)}` | {_value(field, wanted)} | {shown} | {field.metadata['help']} |"


def _value(field: dataclasses.Field[object], wanted: FieldType) -> str:
    if wanted.scalar is bool:
        return "switch"
    if field.metadata["choices"]:
        return ", ".join(f"`{choice}`" for choice in field.metadata["choices"])
    bounds = [
        f"{word} {field.metadata[bound]:g}"
        for bound, word in (("minimum", ">="), ("above", ">"), ("maximum", "<="))
        if field.metadata[bound] is not None
    ]
    return " ".join([WORDS[wanted.scalar] + (" ..." if wanted.is_list else ""), ", ".join(bounds)]).strip()


if __name__ == "__main__":
    write_flags_page()
