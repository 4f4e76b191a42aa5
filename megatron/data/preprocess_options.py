"""What `tools/preprocess_data.py` can be told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from megatron.basics.option import Options, option
from megatron.data.options import TOKENIZER_TYPES

INPUT_FORMATS = ("auto", "jsonl", "text")
TEXT_DOCUMENTS = ("file", "paragraph", "line")


@dataclass(frozen=True, kw_only=True)
class TextInputOptions(Options):
    """Which texts to read, and what a document is."""

    group: ClassVar[str] = "input"

    input: list[str] = option([], "Files, plain, gzip or Zstandard; - is standard input.", metavar="FILE")
    input_format: str = option(
        "auto",
        "jsonl: a JSON object a line; text: plain text. auto goes by the file's ending (.jsonl, .json, .ndjson, .txt, "
        ".text, .md, .rst, before .gz or .zst), else by whether its first character is {.",
        choices=INPUT_FORMATS,
    )
    json_keys: list[str] = option(["text"], "JSONL: keys of the texts.", metavar="KEY")
    text_documents: str = option(
        "file",
        "Plain text: a document is a whole file, a paragraph (lines up to one without text), or a line.",
        choices=TEXT_DOCUMENTS,
    )

    def rules(self) -> Iterator[str]:
        """Something must be read."""
        if not self.input:
            yield "--input is missing; name the files to read, or - for standard input."
        if not self.json_keys or len(set(self.json_keys)) < len(self.json_keys):
            yield "--json-keys must name at least one key, and each one once."
        if self.input_format == "text":
            yield from self.without_effect(("json_keys",), "with --input-format text")
        if self.input_format == "jsonl":
            yield from self.without_effect(("text_documents",), "with --input-format jsonl")


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions(Options):
    """How texts become token files."""

    group: ClassVar[str] = "output"

    output_prefix: str | None = option(
        None,
        "Writes PREFIX_KEY_document.bin, .idx and .json for each key; plain text has the key text.",
        metavar="PREFIX",
    )
    tokenizer_type: str = option("SentencePieceTokenizer", "Kind of tokenizer.", choices=TOKENIZER_TYPES)
    tokenizer_model: str | None = option(None, "SentencePiece .model file, or folder of a Hugging Face tokenizer.")
    append_eod: bool = option(False, "End every document with the tokenizer's end-of-document token.")
    workers: int | None = option(
        None, "Processes that encode. Default: the cores this process may use.", minimum=1, maximum=4096
    )
    strict: bool = option(False, "Stop at the first line that holds no usable document, and write nothing.")

    def rules(self) -> Iterator[str]:
        """The output must have a name."""
        if not self.output_prefix:
            yield "--output-prefix is missing; it is the beginning of the names of the files to write."
        if self.tokenizer_model is None:
            yield "--tokenizer-model is missing; train one with tools/train_tokenizer.py."
