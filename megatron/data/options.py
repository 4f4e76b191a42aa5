"""Where the text comes from and how it is cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from megatron.basics.option import Options, option
from megatron.tokenization.options import ADDED_TOKENS

START_TOKENS = ("pad", "begin")
TOKENIZER_TYPES = ("SentencePieceTokenizer", "HuggingFaceTokenizer")


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """Token files, splits, windows and the tokenizer that made them."""

    group: ClassVar[str] = "data"

    data_path: list[str] = option(
        [], "Token files without .bin/.idx: one PREFIX, or WEIGHT PREFIX WEIGHT PREFIX ... for a blend.", metavar="PART"
    )
    train_data_path: list[str] = option(
        [], "As --data-path, for training alone; then --split is not used.", metavar="PART"
    )
    valid_data_path: list[str] = option([], "As --data-path, for validation alone.", metavar="PART")
    split: str = option("969,30,1", "Shares of each file's documents for training, validation and test.")
    seq_length: int = option(1024, "Tokens in a row; of an encoder-decoder in its encoder's row.", minimum=1)
    decoder_seq_length: int | None = option(
        None, "Tokens in the decoder's row of an encoder-decoder. Default: --seq-length.", minimum=1
    )
    begin_with_start_token: bool = option(
        False, "Decoder-only rows begin each example with a start token, not with its first token; see --start-token."
    )
    start_token: str = option(
        "pad",
        "Token that rows begin with under --begin-with-start-token: padding, as T5X, or the tokenizer's "
        "beginning-of-text token.",
        choices=START_TOKENS,
    )
    tokenizer_type: str = option("SentencePieceTokenizer", "Kind of tokenizer.", choices=TOKENIZER_TYPES)
    tokenizer_model: str | None = option(None, "SentencePiece .model file, or folder of a Hugging Face tokenizer.")
    add_special_tokens: list[str] = option(
        [],
        "Special tokens that get ids behind the tokenizer model's own where it lacks them: 100 sentinels for span "
        "corruption, mode_tokens for UL2, fim_tokens for fill-in-the-middle. Token files stay as they are.",
        choices=ADDED_TOKENS,
    )
    pack_documents: bool = option(
        False,
        "Every document is an example of its own, as many in a row as fit, blind to one another; only longer ones are "
        "cut.",
    )
    reset_attention_mask: bool = option(False, "Documents in a row do not see each other.")
    reset_position_ids: bool = option(False, "Positions start again at each document.")
    eod_mask_loss: bool = option(False, "No loss on the token that follows an end of document.")
    num_workers: int = option(
        2, "Threads that prepare batches ahead of the step; 0 prepares them in the step.", minimum=0
    )

    @property
    def split_weights(self) -> tuple[float, float, float]:
        """Normalised shares of training, validation and test; missing ones are 0."""
        weights = [float(part) for part in self.split.split(",")]
        weights += [0.0] * (3 - len(weights))
        return weights[0] / sum(weights), weights[1] / sum(weights), weights[2] / sum(weights)

    def rules(self) -> Iterator[str]:
        """Splits and blends must be readable."""
        try:
            weights = [float(part) for part in self.split.split(",")]
        except ValueError:
            weights = []
        if not 1 <= len(weights) <= 3 or not all(0 <= w < float("inf") for w in weights) or sum(weights) <= 0:
            yield f"--split {self.split} is not up to three numbers of 0 or more with a sum above 0, e.g. 969,30,1."
        if self.data_path and self.train_data_path:
            yield "--data-path and --train-data-path exclude each other; keep one."
        if self.train_data_path:
            yield from self.without_effect(("split",), "with --train-data-path")
        if not self.begin_with_start_token:
            yield from self.without_effect(("start_token",), "without --begin-with-start-token")
        if self.pack_documents:
            yield from self.without_effect(
                ("reset_attention_mask", "reset_position_ids", "eod_mask_loss"), "with --pack-documents"
            )
        if self.valid_data_path and not self.train_data_path:
            yield "--valid-data-path needs --train-data-path; use both, or --data-path with --split."
        for flag, parts in (
            ("--data-path", self.data_path),
            ("--train-data-path", self.train_data_path),
            ("--valid-data-path", self.valid_data_path),
        ):
            yield from _blend_faults(flag, parts)


def blend_of(parts: list[str]) -> list[tuple[float, str]]:
    """[(weight, prefix)] of a --data-path value; one PREFIX alone has weight 1."""
    if len(parts) == 1:
        return [(1.0, parts[0])]
    return [(float(weight), prefix) for weight, prefix in zip(parts[::2], parts[1::2], strict=True)]


def _blend_faults(flag: str, parts: list[str]) -> Iterator[str]:
    if len(parts) < 2:
        return
    if len(parts) % 2:
        yield f"{flag} takes one PREFIX or pairs of WEIGHT PREFIX; {len(parts)} parts are neither."
        return
    for weight in parts[::2]:
        try:
            legal = 0 < float(weight) < float("inf")
        except ValueError:
            legal = False
        if not legal:
            yield f"{flag} {weight} is not a weight above 0; write WEIGHT PREFIX WEIGHT PREFIX ..."
