"""What `tools/train_tokenizer.py` can be told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from megatron.basics.option import Options, option

MODEL_TYPES = ("unigram", "bpe")
SMALLEST_VOCABULARY = 363  # six special tokens, 256 bytes, 100 sentinels and one piece
ADDED_TOKENS = ("sentinels", "mode_tokens", "fim_tokens")  # fields of SpecialTokens
NORMALIZATIONS = ("identity", "nfkc", "nfkc_cf", "nmt_nfkc", "nmt_nfkc_cf")


@dataclass(frozen=True, kw_only=True)
class TrainTokenizerOptions(Options):
    """How a vocabulary is made."""

    group: ClassVar[str] = "vocabulary"

    output_prefix: str | None = option(None, "Writes PREFIX.model and PREFIX.vocab.", metavar="PREFIX")
    vocab_size: int = option(
        32000,
        "Ids of the vocabulary, with bytes, special tokens and sentinels.",
        minimum=SMALLEST_VOCABULARY,
        maximum=1_000_000,
    )
    model_type: str = option("unigram", "unigram (Kudo 2018) or bpe (Sennrich et al. 2016).", choices=MODEL_TYPES)
    character_coverage: float = option(
        0.9995,
        "Share of the text's characters that get a token of their own; the rest falls back to bytes.",
        minimum=0.5,
        maximum=1.0,
    )
    normalization: str = option(
        "identity",
        "identity keeps every text as it is. SentencePiece's other rules fold compatible characters (nfkc), also case "
        "(_cf), and turn line breaks into spaces (nmt_); with them decoding does not give the text back.",
        choices=NORMALIZATIONS,
    )
    split_digits: bool = option(False, "Every digit is a token of its own.")
    special_tokens: list[str] = option(
        [],
        "Special tokens to have beside the usual ones: mode_tokens ([R], [S], [X]) for UL2, fim_tokens for "
        "fill-in-the-middle.",
        choices=ADDED_TOKENS[1:],
    )
    max_lines: int = option(2_000_000, "Learn from a sample of so many lines; memory grows with it.", minimum=1)

    def rules(self) -> Iterator[str]:
        """The output must have a name, and the vocabulary room for what it always holds."""
        if not self.output_prefix:
            yield "--output-prefix is missing; it is the name of the files to write, without .model and .vocab."
        smallest = SMALLEST_VOCABULARY + 3 * len(set(self.special_tokens))
        if self.vocab_size < smallest:
            yield (
                f"--vocab-size {self.vocab_size} is too small with --special-tokens {' '.join(self.special_tokens)}; "
                f"use {smallest} or more."
            )
