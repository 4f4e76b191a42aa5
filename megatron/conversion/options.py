"""What `tools/convert_checkpoint.py` can be told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from megatron.basics.option import Options, option

DTYPES = ("float32", "bfloat16", "float16")
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """What is converted."""

    group: ClassVar[str] = "source"

    load: str | None = option(
        None, "to-hf, verify: run folder with checkpoints, written on any layout. from-hf: folder of Hugging Face."
    )
    tokenizer_model: str | None = option(
        None,
        "to-hf, verify: the run's tokenizer, where it has moved. from-hf: a tokenizer for a folder without one, or "
        "instead of the folder's.",
    )

    def rules(self) -> Iterator[str]:
        """There must be something to load."""
        if not self.load:
            yield "--load is missing; name the folder to convert."


@dataclass(frozen=True, kw_only=True)
class CheckpointChoice(Options):
    """Which checkpoint of a run folder."""

    group: ClassVar[str] = "to-hf and verify"

    load_iteration: int | None = option(
        None, "Checkpoint of --load to take. Default: the newest complete one.", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class TargetOptions(Options):
    """What is written."""

    group: ClassVar[str] = "to-hf and from-hf"

    save: str | None = option(None, "New folder to write; it appears when it is complete.")
    family: str | None = option(
        None,
        "Kind of model that the folder holds. Default: to-hf, the first one of transformers that can hold it; from-hf, "
        "that of its config.",
        metavar="NAME",
    )
    dtype: str | None = option(
        None,
        "Precision of the weights that are written; to-hf takes the optimizer's float32 weights for float32, where the "
        "checkpoint has them. Default: as they are.",
        choices=DTYPES,
    )
    max_shard_size: str = option("5GB", "Begin another file of weights at this size; KB, MB, GB.", metavar="SIZE")

    @property
    def max_shard_bytes(self) -> int:
        """The same as a number."""
        number, unit = _size(self.max_shard_size)
        return int(number * UNITS[unit])

    def rules(self) -> Iterator[str]:
        """There is a name for what is made, and sizes can be read."""
        if not self.save:
            yield "--save is missing; name the folder to write."
        try:
            is_sound = self.max_shard_bytes > 0
        except ValueError:
            is_sound = False
        if not is_sound:
            yield f"--max-shard-size {self.max_shard_size} is not a size such as 500MB or 5GB."


@dataclass(frozen=True, kw_only=True)
class ImportOptions(Options):
    """What the run folder says beside the weights; later runs begin with it."""

    group: ClassVar[str] = "from-hf"

    objective: str | None = option(
        None,
        "What the model was trained to predict. Default: what an export of ours says, else full_lm, of prefix decoders "
        "prefix_lm, of encoder-decoders span_corruption.",
        metavar="NAME",
    )
    seq_length: int | None = option(
        None, "Tokens in a row. Default: what an export of ours says, else all positions of the model.", minimum=1
    )
    tokenizer_type: str | None = option(
        None,
        "Kind of --tokenizer-model. Default: SentencePieceTokenizer for a file, HuggingFaceTokenizer for a folder.",
        choices=("SentencePieceTokenizer", "HuggingFaceTokenizer"),
    )


@dataclass(frozen=True, kw_only=True)
class FolderOptions(Options):
    """What a checkpoint is compared with."""

    group: ClassVar[str] = "verify"

    hf: str | None = option(None, "Hugging Face folder to compare with the checkpoint.", metavar="FOLDER")

    def rules(self) -> Iterator[str]:
        """There must be something to compare with."""
        if not self.hf:
            yield "--hf is missing; name the Hugging Face folder to compare with the checkpoint."


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions(Options):
    """How the model of a folder is compared with that of a checkpoint."""

    group: ClassVar[str] = "comparison"

    verify_text: str | None = option(
        None, "Text on which logits are compared. Default: some of Python's documentation.", metavar="FILE"
    )
    tolerance: float | None = option(
        None,
        "Largest difference of float32 logits that passes. Default: 1e-4, times the logits' root mean square where "
        "that is above 1.",
        minimum=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class NoComparisonOptions(Options):
    """Whether what is written is compared with what it was made of."""

    group: ClassVar[str] = "to-hf and from-hf without a comparison"

    no_verify: bool = option(False, "Write without comparing the logits of both models at the end.")


def _size(text: str) -> tuple[float, str]:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMG]B)", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(text)
    return float(match[1]), match[2].upper()
