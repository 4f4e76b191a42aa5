"""What a token file is known to hold: PREFIX.json beside PREFIX.bin and PREFIX.idx.

`tools/preprocess_data.py` writes it, the reader checks it. Corpora made for Megatron-LM have none and load all the
same.
Schema, all fields required, other fields ignored:

    {
      "format": 1,                                 version of this schema
      "tokenizer_type": "SentencePieceTokenizer",  as --tokenizer-type
      "tokenizer_fingerprint": "9f2c...",          Tokenizer.fingerprint: SHA-256 of its vocabulary, 64 hex digits
      "vocabulary_size": 8192,                     Tokenizer.vocabulary_size, without padding
      "largest_token_id": 8091,                    -1 in a file without tokens
      "eod_id": 1,                                 id that ends every document; null without --append-eod
      "documents": 25000,                          entries of the .idx
      "tokens": 9170313,                           with the ends of documents
      "bin_bytes": 18340626,                       size of the .bin
      "block_bytes": 67108864,                     the .bin is checked in blocks of so many bytes, the last one shorter
      "block_crc32": [1812391833],                 zlib.crc32 of each block
      "idx_crc32": 2718281828                      zlib.crc32 of the whole .idx
    }
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.basics.atomic_files import write_json
from megatron.basics.errors import UserError

FORMAT = 1
BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class TokenFileFacts:
    """The schema above as a record."""

    tokenizer_type: str
    tokenizer_fingerprint: str
    vocabulary_size: int
    largest_token_id: int
    eod_id: int | None
    documents: int
    tokens: int
    bin_bytes: int
    block_bytes: int
    block_crc32: tuple[int, ...]
    idx_crc32: int

    @classmethod
    def read(cls, prefix: str | os.PathLike[str]) -> TokenFileFacts | None:
        """The facts of PREFIX, or None where PREFIX.json does not exist.

        Raises UserError when the file is there and is not what this module writes.
        """
        path = facts_path(prefix)
        try:
            content = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(_unreadable(path, str(error))) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(_unreadable(path, f'"format" is not {FORMAT}'))
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            value = content.get(field.name)
            if not _has_kind(value, str(field.type)):
                raise UserError(_unreadable(path, f'"{field.name}" is missing or of the wrong type'))
            values[field.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    def write(self, prefix: str | os.PathLike[str]) -> None:
        """Write PREFIX.json, atomically."""
        write_json(facts_path(prefix), {"format": FORMAT, **dataclasses.asdict(self)})


def facts_path(prefix: str | os.PathLike[str]) -> Path:
    """PREFIX -> PREFIX.json."""
    return Path(f"{os.fspath(prefix)}.json")


def _has_kind(value: Any, kind: str) -> bool:
    if kind == "tuple[int, ...]":
        return isinstance(value, list) and all(_has_kind(part, "int") for part in value)
    if kind == "str":
        return isinstance(value, str)
    if kind == "int | None" and value is None:
        return True
    return isinstance(value, int) and not isinstance(value, bool)


def _unreadable(path: Path, reason: str) -> str:
    return (
        f"{path} does not describe a token file ({reason}); preprocess the text again, or delete it to load unchecked."
    )
