"""Sections of options as one command line: --help by argparse, every fault of a command answered at once."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import shlex
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from megatron.basics.errors import UserError, nearest_name
from megatron.basics.option import Options, bound_faults, default_of, flag_of
from megatron.cli.config_file import convert_config, read_config_file
from megatron.cli.values import FieldType, WrongValue, field_types, from_texts

Rule = Callable[..., Iterable[str]]
Section = TypeVar("Section", bound=Options)
METAVARS: dict[type, str] = {int: "N", float: "X", str: "TEXT"}


def parse(
    argv: Sequence[str],
    sections: Mapping[str, type[Options]],
    *,
    description: str = "",
    rules: Sequence[Rule] = (),
    facts: Mapping[str, Any] | None = None,
    defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda given: {},
    first_word: str = "",
) -> dict[str, Any]:
    """The options of each section, from a command line and the --config file that it may name.

    defaults: from what these give, values by field for what they leave out, before the fields' own defaults.
    first_word: what stands before the flags where a command does several things; --help shows it.

    A rule is a function whose parameters are names of sections or of `facts`, e.g. `def heads_fit(model, layout)`; it
    yields one sentence per fault and runs when all it asks for is sound. Raises one UserError with every fault: unknown
    flags, wrong types, values out of bounds, settings that exclude each other, broken rules. Abbreviated flags are
    refused. `--help` prints and exits.
    """
    types = _types_of_all(sections)
    given, config_path, faults, doubtful = _read_command_line(_parser(sections, description, first_word), argv, types)
    values: dict[str, Any] = {}
    if config_path:
        try:
            values, config_faults, config_doubtful = convert_config(config_path, read_config_file(config_path), types)
        except UserError as error:  # nobody knows what the file meant to set
            config_faults, config_doubtful = list(error.faults), set(types)
        faults += config_faults
        doubtful |= config_doubtful
    values |= given
    try:
        values = {**defaults(values), **values}
    except UserError as error:  # what it would have set is unknown
        raise UserError(*faults, *error.faults) from error
    built = dict(facts or {})
    for section, options_class in sections.items():
        options, section_faults = _build(options_class, values, doubtful)
        faults += section_faults
        if options is not None:
            built[section] = options
    faults += broken_rules(rules, built)
    if faults:
        raise UserError(*faults)
    return {section: built[section] for section in sections}


def broken_rules(rules: Sequence[Rule], known: Mapping[str, Any]) -> Iterator[str]:
    """The sentences of those rules whose parameters are all known."""
    for rule in rules:
        parameters = _parameters_of(rule)
        if all(name in known for name in parameters):
            yield from rule(**{name: known[name] for name in parameters})


@functools.cache
def _parameters_of(rule: Rule) -> tuple[str, ...]:
    return tuple(inspect.signature(rule).parameters)


def options_from(options_class: type[Section], values: Mapping[str, Any] | argparse.Namespace) -> Section:
    """A section from values by field name; what is missing keeps its default. Raises UserError as the section does."""
    mapping = vars(values) if isinstance(values, argparse.Namespace) else values
    fields = {field.name for field in dataclasses.fields(options_class)}
    return options_class(**{name: value for name, value in mapping.items() if name in fields})


def add_options(parser: argparse.ArgumentParser, options_class: type[Options]) -> None:
    """Give `parser` the flags of a section, under its heading.

    Every flag takes the words that follow it as they are; `from_texts` checks their number and type, because argparse
    stops at the first fault.
    """
    group = parser.add_argument_group(options_class.group)
    types = field_types(options_class)
    for field in dataclasses.fields(options_class):
        group.add_argument(
            flag_of(field.name),
            dest=field.name,
            nargs="*",
            default=argparse.SUPPRESS,
            help=help_of(field),
            metavar=metavar_of(field, types[field.name]),
        )


def help_of(field: dataclasses.Field[Any]) -> str:
    """The help of a flag with its default, unless the text itself tells what happens by default."""
    default = shown_default(field)
    text = str(field.metadata["help"])
    return (f"{text} Default: {default}." if default else text).replace("%", "%%")


def shown_default(field: dataclasses.Field[Any]) -> str:
    """The default as a person would type it; nothing for a switch, and for what is not set."""
    default = default_of(field)
    if default is None or default is False:
        return ""
    return shlex.join(map(str, default)) if isinstance(default, list) else str(default)


def metavar_of(field: dataclasses.Field[Any], wanted: FieldType) -> str:
    """How --help shows the value of a flag: its choices, its own word, or its type; nothing for a switch."""
    if wanted.scalar is bool:
        return ""
    choices = field.metadata["choices"]
    word = "{" + ",".join(choices) + "}" if choices else field.metadata["metavar"] or METAVARS[wanted.scalar]
    return f"{word} [{word} ...]" if wanted.is_list else word


class _HelpFormatter(argparse.HelpFormatter):
    """Shows the words of a flag as its metavar says, not as argparse's `[X ...]`."""

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar or "")

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)  # a flag's name stays whole


def _parser(sections: Mapping[str, type[Options]], description: str, first_word: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description,
        usage=f"%(prog)s {first_word}{' ' if first_word else ''}[--config FILE] [--flag value ...]",
        epilog="A switch that the file of --config turns on is turned off by --switch=false.",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", nargs="*", metavar="FILE", help="YAML file of FLAG: VALUE lines; flags given here win over it."
    )
    for options_class in sections.values():
        add_options(parser, options_class)
    return parser


def _read_command_line(
    parser: argparse.ArgumentParser, argv: Sequence[str], types: Mapping[str, FieldType]
) -> tuple[dict[str, Any], str | None, list[str], set[str]]:
    """Values by field, the --config file, faults, and the fields that the faults are about."""
    namespace, unknown = parser.parse_known_args(list(argv))
    words = {name: texts for name, texts in vars(namespace).items() if texts is not None}
    values: dict[str, Any] = {}
    faults, doubtful = _unknown_flags(unknown, types)
    for name, wanted in {"config": FieldType(str), **types}.items():
        if name not in words:
            continue
        try:
            values[name] = from_texts(wanted, words[name])
        except WrongValue as fault:
            faults.append(f"{flag_of(name)} {fault}.")
            doubtful.add(name)
    return values, values.pop("config", None), faults, doubtful


def _unknown_flags(unknown: Sequence[str], types: Mapping[str, FieldType]) -> tuple[list[str], set[str]]:
    """Faults of words that belong to no flag, and the fields that misspelt flags were probably meant for."""
    faults: list[str] = []
    doubtful: set[str] = set()
    after_unknown_flag = False
    for word in unknown:
        if word.startswith("-"):
            flag = word.split("=")[0]
            guess = nearest_name(flag, map(flag_of, types))
            faults.append(f"{flag} is not a known flag; {f'did you mean {guess}?' if guess else 'see --help.'}")
            if guess:
                doubtful.add(guess[2:].replace("-", "_"))
            after_unknown_flag = True
        elif not after_unknown_flag:
            faults.append(f"{word} belongs to no flag; every setting is written --flag value.")
    return faults, doubtful


def _build(
    options_class: type[Options], values: Mapping[str, Any], doubtful: set[str]
) -> tuple[Options | None, list[str]]:
    """The section, or its faults. Where a field is in doubt, only the others' own bounds can be judged."""
    fields = dataclasses.fields(options_class)
    if any(field.name in doubtful for field in fields):
        judged = [field for field in fields if field.name in values and field.name not in doubtful]
        return None, [fault for field in judged for fault in bound_faults(field, values[field.name])]
    try:
        return options_from(options_class, values), []
    except UserError as error:
        return None, list(error.faults)


def _types_of_all(sections: Mapping[str, type[Options]]) -> dict[str, FieldType]:
    types: dict[str, FieldType] = {}
    for options_class in sections.values():
        for name, wanted in field_types(options_class).items():
            assert name not in types, f"{flag_of(name)} stands in two sections"
            types[name] = wanted
    return types
