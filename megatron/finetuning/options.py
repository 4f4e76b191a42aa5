"""What `tools/prepare_tasks.py` can be told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from megatron.basics.option import Options, option
from megatron.data.options import TOKENIZER_TYPES


@dataclass(frozen=True, kw_only=True)
class TaskOptions(Options):
    """Which data sets are worded, by which templates."""

    group: ClassVar[str] = "tasks"

    mixture: str | None = option(
        None,
        "t0, t0_plus, t0_plus_plus, or a YAML file of the same form: data sets, held-out tasks, cap.",
        metavar="NAME",
    )
    data_sets: list[str] = option(
        [],
        "Of the mixture these alone, e.g. super_glue/boolq; one that is not at hand is then a fault.",
        metavar="NAME",
    )
    templates: str | None = option(None, "Folder of templates in promptsource's form.", metavar="DIR")
    data_dir: str | None = option(
        None,
        "Folder with data sets: JSON lines, Parquet, folders of the datasets library, requests of OLMo; no network is "
        "used. Default: they are fetched from the Hugging Face hub.",
        metavar="DIR",
    )
    split: str = option("train", "Split that is trained on.")
    validation_split: str = option("validation", "Split of the same data sets that is not.")
    cap: int | None = option(
        None,
        "Examples of a data set beyond which its templates share this many. Default: as the mixture says, 500,000.",
        minimum=1,
    )
    no_leak_check: bool = option(
        False, "Do not look for examples of evaluation among those of training, and leave none out."
    )

    def rules(self) -> Iterator[str]:
        """There is something to prepare."""
        if self.mixture is None:
            yield "--mixture is missing; give t0, t0_plus, t0_plus_plus or a YAML file of data sets."
        if self.templates is None:
            yield "--templates is missing; give a folder in promptsource's form, see docs/prompts.md."
        if len(set(self.data_sets)) < len(self.data_sets):
            yield "--data-sets names a data set twice; leave one out."
        if self.split == self.validation_split:
            yield f"--split and --validation-split are both {self.split}; train on another split than you validate on."


@dataclass(frozen=True, kw_only=True)
class TaskOutputOptions(Options):
    """Where prompts go, and as which tokens."""

    group: ClassVar[str] = "output"

    output_folder: str | None = option(
        None, "Folder to write; the same command again goes on where it stopped.", metavar="DIR"
    )
    tokenizer_type: str = option("SentencePieceTokenizer", "Kind of tokenizer.", choices=TOKENIZER_TYPES)
    tokenizer_model: str | None = option(None, "SentencePiece .model file, or folder of a Hugging Face tokenizer.")
    max_input_length: int = option(
        1024,
        "Keep the last so many tokens of longer inputs, so that every architecture reads the same. T0's length.",
        minimum=1,
    )
    max_target_length: int = option(
        256, "Leave out prompts whose target and end token are more tokens. T0's length.", minimum=2
    )
    strict: bool = option(
        False,
        "Stop at the first prompt with a fault: a copy of what is evaluated on, a target that is too long, choices "
        "that cannot be ranked.",
    )
    workers: int | None = option(
        None, "Processes that render and encode. Default: the cores this process may use.", minimum=1, maximum=1024
    )
    seed: int = option(1234, "Decides what templates choose at random, and which examples a cap leaves.", minimum=0)

    def rules(self) -> Iterator[str]:
        """The output has a place, and tokens have a vocabulary."""
        if self.output_folder is None:
            yield "--output-folder is missing; give a folder for the prepared data sets."
        if self.tokenizer_model is None:
            yield "--tokenizer-model is missing; give the tokenizer of the run that will be finetuned."
