"""The command that takes checkpoints to Hugging Face folders, such folders to checkpoints, and compares both."""

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
from megatron.cli.run_config import world_size_from_environment
from megatron.cli.start_up import quiet_libraries
from megatron.cli.verify import verify
from megatron.conversion.new_folder import occupied
from megatron.conversion.options import (
    CheckpointChoice,
    ComparisonOptions,
    FolderOptions,
    ImportOptions,
    NoComparisonOptions,
    SourceOptions,
    TargetOptions,
)
from megatron.conversion.registry import FAMILIES

DESCRIPTION = (
    "to-hf: a checkpoint of ours becomes a Hugging Face folder. from-hf: such a folder becomes a run folder. Both end "
    "with a comparison of the two models, which verify makes by itself. Alone, on CPU, whatever the layout that wrote "
    "the checkpoint or will read it."
)
SECTIONS: dict[str, type[Options]] = {
    "source": SourceOptions,
    "checkpoint": CheckpointChoice,
    "target": TargetOptions,
    "import_options": ImportOptions,
    "folder": FolderOptions,
    "comparison": ComparisonOptions,
    "no_comparison": NoComparisonOptions,
}


@dataclass(frozen=True)
class Direction:
    """One way of converting: what it does, the sections of its command line, and the function that takes them."""

    description: str
    sections: tuple[str, ...]
    run: Callable[[Mapping[str, Any]], object]


def _to_hf(sections: Mapping[str, Any]) -> object:
    return to_hf(sections["source"], sections["checkpoint"], sections["target"], _comparison(sections))


def _from_hf(sections: Mapping[str, Any]) -> object:
    return from_hf(sections["source"], sections["target"], sections["import_options"], _comparison(sections))


def _verify(sections: Mapping[str, Any]) -> object:
    return verify(sections["source"], sections["checkpoint"], sections["folder"], sections["comparison"])


def _comparison(sections: Mapping[str, Any]) -> ComparisonOptions | None:
    options: ComparisonOptions = sections["comparison"]
    return None if sections["no_comparison"].no_verify else options


AT_THE_END = ("comparison", "no_comparison")
DIRECTIONS = {
    "to-hf": Direction(
        "A checkpoint of ours as a Hugging Face folder.", ("source", "checkpoint", "target", *AT_THE_END), _to_hf
    ),
    "from-hf": Direction(
        "A Hugging Face folder as a run folder, for tools/generate.py, --load RUN --finetune and adapt.py.",
        ("source", "target", "import_options", *AT_THE_END),
        _from_hf,
    ),
    "verify": Direction(
        "Whether a Hugging Face folder holds the model of a checkpoint of ours; exit code 1 where it does not.",
        ("source", "checkpoint", "folder", "comparison"),
        _verify,
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
        rules=RULES,
        first_word=words[0],
    )
    quiet_libraries()
    direction.run(sections)


def _direction(words: Sequence[str]) -> Direction:
    known = ", ".join(DIRECTIONS)
    if not words or words[0].startswith("-"):
        raise UserError(
            f"say first what to do ({known}), as in `convert_checkpoint.py to-hf --load RUN --save FOLDER`."
        )
    if words[0] not in DIRECTIONS:
        raise UserError(f"{words[0]} is not known;{nearest(words[0], DIRECTIONS)} Known: {known}.")
    return DIRECTIONS[words[0]]


def _load_is_a_folder(source: SourceOptions) -> Iterator[str]:
    """There is a folder to convert; nothing is fetched."""
    if not os.path.isdir(str(source.load)):
        yield f"--load {source.load} is not a folder; check the path. Nothing is fetched: models are downloaded before."


def _hf_is_a_folder(folder: FolderOptions) -> Iterator[str]:
    """There is a folder to compare with."""
    if not os.path.isdir(str(folder.hf)):
        yield f"--hf {folder.hf} is not a folder; check the path. Nothing is fetched: models are downloaded before."


def _one_process() -> Iterator[str]:
    """Nothing is shared between processes here."""
    if world_size_from_environment() > 1:
        yield "convert_checkpoint.py takes one process; start it without torchrun."


def _no_verify_stands_alone(comparison: ComparisonOptions, no_comparison: NoComparisonOptions) -> Iterator[str]:
    """Settings of a comparison need one."""
    if no_comparison.no_verify:
        yield from comparison.without_effect(("verify_text", "tolerance"), "with --no-verify")


def _kind_of_a_tokenizer_that_is_given(source: SourceOptions, import_options: ImportOptions) -> Iterator[str]:
    """The folder's own tokenizer says itself what it is."""
    if source.tokenizer_model is None:
        yield from import_options.without_effect(("tokenizer_type",), "without --tokenizer-model")


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


RULES = (
    _one_process,
    _load_is_a_folder,
    _save_is_free,
    _family_is_known,
    _hf_is_a_folder,
    _no_verify_stands_alone,
    _kind_of_a_tokenizer_that_is_given,
)
