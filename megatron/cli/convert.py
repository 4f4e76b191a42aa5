"""The command that takes checkpoints to Hugging Face folders, and such folders to checkpoints."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron.basics.errors import UserError, nearest
from megatron.basics.option import Options
from megatron.cli.export_run import to_hf
from megatron.cli.flags import parse
from megatron.cli.import_folder import from_hf
from megatron.cli.start_up import quiet_libraries
from megatron.conversion.new_folder import occupied
from megatron.conversion.options import CheckpointChoice, ImportOptions, SourceOptions, TargetOptions
from megatron.conversion.registry import FAMILIES

DESCRIPTION = (
    "to-hf: a checkpoint of ours becomes a Hugging Face folder. from-hf: such a folder becomes a run folder. Alone, on "
    "CPU, whatever the layout that wrote the checkpoint or will read it."
)
SECTIONS: dict[str, type[Options]] = {
    "source": SourceOptions,
    "checkpoint": CheckpointChoice,
    "target": TargetOptions,
    "import_options": ImportOptions,
}


@dataclass(frozen=True)
class Direction:
    """One way of converting: what it does, the sections of its command line, and the function that takes them."""

    description: str
    sections: tuple[str, ...]
    run: Callable[[Mapping[str, Any]], object]


def _to_hf(sections: Mapping[str, Any]) -> object:
    return to_hf(sections["source"], sections["checkpoint"], sections["target"])


def _from_hf(sections: Mapping[str, Any]) -> object:
    return from_hf(sections["source"], sections["target"], sections["import_options"])


DIRECTIONS = {
    "to-hf": Direction("A checkpoint of ours as a Hugging Face folder.", ("source", "checkpoint", "target"), _to_hf),
    "from-hf": Direction(
        "A Hugging Face folder as a run folder, for tools/generate.py, --load RUN --finetune and adapt.py.",
        ("source", "target", "import_options"),
        _from_hf,
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises UserError."""
    words = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(words[:1]):
        parse(words, SECTIONS, description=DESCRIPTION, first_word="{" + ",".join(DIRECTIONS) + "}")
    direction = _direction(words)
    sections = parse(
        words[1:],
        {name: SECTIONS[name] for name in direction.sections},
        description=direction.description,
        rules=(_load_is_a_folder, _save_is_free, _family_is_known),
        first_word=words[0],
    )
    quiet_libraries()
    direction.run(sections)


def _direction(words: Sequence[str]) -> Direction:
    known = " or ".join(DIRECTIONS)
    if not words or words[0].startswith("-"):
        raise UserError(f"say first what to do: {known}, as in `convert_checkpoint.py to-hf --load RUN --save FOLDER`.")
    if words[0] not in DIRECTIONS:
        raise UserError(f"{words[0]} is not known;{nearest(words[0], DIRECTIONS)} It is {known}.")
    return DIRECTIONS[words[0]]


def _load_is_a_folder(source: SourceOptions) -> Iterator[str]:
    """There is a folder to convert; nothing is fetched."""
    if not os.path.isdir(str(source.load)):
        yield f"--load {source.load} is not a folder; check the path. Nothing is fetched: models are downloaded before."


def _save_is_free(target: TargetOptions) -> Iterator[str]:
    """Nothing is overwritten."""
    yield from occupied("--save", str(target.save))


def _family_is_known(target: TargetOptions) -> Iterator[str]:
    """The family is one of the table."""
    if target.family is not None:
        try:
            FAMILIES.location(target.family)
        except UserError as error:
            yield from error.faults
