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
        None, "to-hf: run folder with checkpoints, written on any layout. from-hf: folder of Hugging Face."
    )
    tokenizer_model: str | None = option(
        None,
        "to-hf: the run's tokenizer, where it has moved. from-hf: a tokenizer for a folder without one, or "
        "instead of the folder's.",
    )

    def rules(self) -> Iterator[str]:
        """There must be something to load."""
        if not self.load:
            yield "--load is missing; name the folder to convert."


@dataclass(frozen=True, kw_only=True)
class CheckpointChoice(Options):
    """Which checkpoint of a run folder."""

    group: ClassVar[str] = "to-hf"

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


def _size(text: str) -> tuple[float, str]:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMG]B)", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(text)
    return float(match[1]), match[2].upper()
