"""docs/flags.md, made from the options: `python -m megatron.cli.flags_page`."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.option import Options, flag_of
from megatron.cli import (
    adapt,
    adaptation_speed,
    convert,
    evaluate,
    evaluation_report,
    finetune,
    generate,
    inspect_data,
    plan,
    plot_loss,
    prepare_tasks,
    preprocess,
    run_config,
    train_tokenizer,
)
from megatron.cli.flags import shown_default
from megatron.cli.values import WORDS, FieldType, field_types

PAGE = Path(__file__).resolve().parents[2] / "docs" / "flags.md"
INTRODUCTION = """\
# Flags of all commands

Made by `python -m megatron.cli.flags_page` from the options in `megatron/*/options.py`; a test compares them.

Every flag can also stand in the YAML file of `--config FILE`, as a line `flag_name: value`; the command line wins over
the file. Flags are never abbreviated, and one that would have no effect is refused. Exit codes: 0 done, 1 a fault of
the run, 2 wrong use, 75 stopped by a signal after saving to --save (start the same command again to go on), 130
interrupted, 141 the reader of its output has closed the pipe.
"""
PRETRAINING = (
    "Pretrain, under torchrun. `--objective NAME` says what the model learns to predict; `--help` lists what it may be."
)

WITH_RUN_SETTINGS = "All flags of the pretrain scripts, above, and these:"


@dataclass(frozen=True)
class Command:
    """Scripts with the same command line, what they do, and its sections.

    takes_run_settings: they have all flags of the pretrain scripts as well, which the page lists once.
    """

    scripts: tuple[str, ...]
    description: str
    sections: Mapping[str, type[Options]]
    takes_run_settings: bool = False


COMMANDS = (
    Command(("pretrain_gpt.py", "pretrain_prefix_lm.py", "pretrain_t5.py"), PRETRAINING, run_config.SECTIONS),
    Command(("adapt.py",), adapt.DESCRIPTION, adapt.SECTIONS, takes_run_settings=True),
    Command(("finetune_t0.py",), finetune.DESCRIPTION, finetune.SECTIONS, takes_run_settings=True),
    Command(("tools/train_tokenizer.py",), train_tokenizer.DESCRIPTION, train_tokenizer.SECTIONS),
    Command(("tools/preprocess_data.py",), preprocess.DESCRIPTION, preprocess.SECTIONS),
    Command(("tools/prepare_tasks.py",), prepare_tasks.DESCRIPTION, prepare_tasks.SECTIONS),
    Command(("tools/convert_checkpoint.py",), convert.DESCRIPTION, convert.SECTIONS),
    Command(("tools/generate.py",), generate.DESCRIPTION, generate.SECTIONS),
    Command(("tools/evaluate.py",), evaluate.DESCRIPTION, evaluate.SECTIONS),
    Command(("tools/compare_evaluations.py",), evaluation_report.DESCRIPTION, evaluation_report.SECTIONS),
    Command(("tools/inspect_data.py",), inspect_data.DESCRIPTION, inspect_data.SECTIONS, takes_run_settings=True),
    Command(("tools/plan.py",), plan.DESCRIPTION, plan.SECTIONS, takes_run_settings=True),
    Command(("tools/plot_loss.py",), plot_loss.DESCRIPTION, plot_loss.SECTIONS),
    Command(("tools/adaptation_speed.py",), adaptation_speed.DESCRIPTION, adaptation_speed.SECTIONS),
)


def flags_page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for command in COMMANDS:
        parts.append(
            f"## {', '.join(command.scripts)}\n\n{textwrap.fill(command.description, 120, break_on_hyphens=False)}\n"
        )
        if command.takes_run_settings:
            parts.append(f"{WITH_RUN_SETTINGS}\n")
        parts += [_section(options_class) for options_class in command.sections.values()]
    return "\n".join(parts)


def write_flags_page(page: Path = PAGE) -> None:
    """Write it, atomically."""
    with atomic_writer(page, "w") as file:
        file.write(flags_page())


def _section(options_class: type[Options]) -> str:
    types = field_types(options_class)
    rows = [_row(field, types[field.name]) for field in dataclasses.fields(options_class)]
    heading = options_class.group[0].upper() + options_class.group[1:]
    table = ["| flag | value | default | what it does |", "|---|---|---|---|", *rows]
    return "\n".join([f"### {heading}", "", str(options_class.__doc__).splitlines()[0], "", *table, ""])


def _row(field: dataclasses.Field[object], wanted: FieldType) -> str:
    default = shown_default(field)
    shown = f"`{default}`" if default else ""
    return f"| `{flag_of(field.name)}` | {_value(field, wanted)} | {shown} | {field.metadata['help']} |"


def _value(field: dataclasses.Field[object], wanted: FieldType) -> str:
    if wanted.scalar is bool:
        return "switch"
    if field.metadata["choices"]:
        return ", ".join(f"`{choice}`" for choice in field.metadata["choices"]) + (" ..." if wanted.is_list else "")
    bounds = [
        f"{word} {field.metadata[bound]:g}"
        for bound, word in (("minimum", ">="), ("above", ">"), ("maximum", "<="))
        if field.metadata[bound] is not None
    ]
    return " ".join([WORDS[wanted.scalar] + (" ..." if wanted.is_list else ""), ", ".join(bounds)]).strip()


if __name__ == "__main__":
    write_flags_page()
