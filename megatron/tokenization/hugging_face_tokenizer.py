"""Hugging Face tokenizers: folders with a `tokenizer.json`, or with older files that transformers can turn into one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as FastTokenizer

from megatron.basics.errors import UserError
from megatron.basics.file_bounds import SETTINGS_BYTES, VOCABULARY_BYTES, refuse_large
from megatron.records.special_tokens import SpecialTokens
from megatron.tokenization.byte_level import text_of_byte_level
from megatron.tokenization.special_tokens import (
    CLASSIFICATION_NAMES,
    FIM_SPELLINGS,
    MASK_NAMES,
    MODE_SPELLINGS,
    SEPARATOR_NAMES,
    find_all,
    find_first,
    find_sentinels,
)
from megatron.tokenization.tokenizer import Tokenizer

CONVERTIBLE_FILES = (
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
METASPACE = "\u2581"


class HuggingFaceTokenizer(Tokenizer):
    """A Hugging Face tokenizer folder behind the common interface.

    The end of a document is the folder's eos_token, the token of eos_token_id in a config.json beside it where the
    tokenizer's own files do not say (the first GPT-2), or its sep_token where it has none (BERT). Raises UserError when
    `source` is no such folder or names none of them.
    """

    tokenizer_type = "HuggingFaceTokenizer"
    guarded = True  # a unigram model has the names of special tokens among its pieces

    def __init__(self, source: str) -> None:
        folder = Path(source)
        if not folder.is_dir():
            raise UserError(
                f"--tokenizer-model {source} is not a folder; a HuggingFaceTokenizer is a folder with tokenizer.json."
            )
        self.source = str(source)
        self._tokenizer, self.fingerprint = _load(folder)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True  # means: no search for the names of special tokens in text
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocabulary_size = max(vocabulary.values()) + 1
        self.special = self._find_special_tokens({**self._names_of_model(folder), **names_of_special_tokens(folder)})
        self.special.check(self.vocabulary_size, self.source)

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """See Tokenizer."""
        return str(self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=True))

    def piece(self, token: int) -> str:
        """See Tokenizer. An id that the vocabulary leaves out is named by its number."""
        piece = self._tokenizer.id_to_token(int(token))
        return f"<{token}>" if piece is None else str(piece)

    def surfaces(self) -> list[str | None]:
        """See Tokenizer."""
        described = json.loads(self._tokenizer.to_str())
        special = set(self.special.ids())
        special |= {added["id"] for added in described["added_tokens"] if added["special"]}
        pieces = {token: piece for piece, token in self._tokenizer.get_vocab(with_added_tokens=True).items()}
        return [
            None if token in special or token not in pieces else _surface(pieces[token], described)
            for token in range(self.vocabulary_size)
        ]

    def _encode_whole(self, texts: list[str]) -> list[NDArray[np.int32]]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def _names_of_model(self, folder: Path) -> dict[str, str]:
        """Begin and end of texts as a model's config.json has them, by ids; nothing where there is none."""
        path = folder / "config.json"
        if not path.exists():
            return {}
        refuse_large(path, SETTINGS_BYTES)
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}  # whatever reads the model says so
        ids = (
            {role: content.get(f"{role}_id") for role in ("bos_token", "eos_token")}
            if isinstance(content, dict)
            else {}
        )
        known = {role: token for role, token in ids.items() if type(token) is int and 0 <= token < self.vocabulary_size}
        return {role: name for role, token in known.items() if (name := self._tokenizer.id_to_token(token)) is not None}

    def _find_special_tokens(self, names: dict[str, str]) -> SpecialTokens:
        id_of = self._tokenizer.token_to_id

        def named(role: str, usual: tuple[str, ...] = ()) -> int | None:
            return find_first(id_of, (names[role],) if role in names else usual)

        separator = named("sep_token", SEPARATOR_NAMES)
        end = named("eos_token")
        end = separator if end is None else end
        if end is None:
            raise UserError(
                f"--tokenizer-model {self.source} names no eos_token or sep_token that its vocabulary has; add one to "
                "its tokenizer_config.json."
            )
        return SpecialTokens(
            end=end,
            begin=named("bos_token"),
            pad=named("pad_token"),
            unknown=named("unk_token"),
            mask=named("mask_token", MASK_NAMES),
            classification=named("cls_token", CLASSIFICATION_NAMES),
            separator=separator,
            sentinels=find_sentinels(id_of),
            mode_tokens=find_all(id_of, *MODE_SPELLINGS),
            fim_tokens=find_all(id_of, *FIM_SPELLINGS),
        )


def _load(folder: Path) -> tuple[FastTokenizer, str]:
    """The tokenizer and the fingerprint of the files that decide its ids."""
    whole = folder / "tokenizer.json"
    for name in (whole.name, *CONVERTIBLE_FILES):
        refuse_large(folder / name, VOCABULARY_BYTES)
    try:
        if whole.exists():
            content = whole.read_bytes()
            return FastTokenizer.from_buffer(content), hashlib.sha256(content).hexdigest()
        digest = hashlib.sha256()
        found = [folder / name for name in CONVERTIBLE_FILES if (folder / name).exists()]
        for path in found:
            digest.update(path.read_bytes())
    except Exception as error:  # the library raises plain Exception for a file that it cannot parse
        raise UserError(f"--tokenizer-model {folder} cannot be read: {error}.") from error
    if not found:
        raise UserError(
            f"--tokenizer-model {folder} holds no tokenizer.json nor another known vocabulary file; give the "
            "folder that save_pretrained wrote."
        )
    return _convert(folder), digest.hexdigest()


def _convert(folder: Path) -> FastTokenizer:
    from transformers import AutoTokenizer  # two seconds to import, and needed for folders without tokenizer.json only

    try:
        # Unset, it would ask at a terminal whether to run the folder's own code.
        converted = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, use_fast=True, trust_remote_code=False
        )
        return converted.backend_tokenizer
    except Exception as error:  # whatever a conversion of some family may raise, the folder is what the user can mend
        raise UserError(
            f"--tokenizer-model {folder} has no tokenizer.json, and transformers cannot make one of its files; save it "
            f"again with a fast tokenizer ({str(error).splitlines()[0][:200]})."
        ) from error


def names_of_special_tokens(folder: Path) -> dict[str, str]:
    """Role (eos_token, pad_token, ...) to name, from the folder's two files; the newer one wins."""
    names: dict[str, str] = {}
    for file_name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / file_name
        if not path.exists():
            continue
        refuse_large(path, SETTINGS_BYTES)
        try:
            content = json.loads(path.read_text("utf-8"))
            roles = content.items()
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is not a JSON object: {error}.") from error
        for role, value in roles:
            name = value.get("content") if isinstance(value, dict) else value
            if role.endswith("_token") and isinstance(name, str):
                names[role] = name
    return names


def _surface(piece: str, described: dict[str, Any]) -> str:
    """The text of a piece under the tokenizer that the JSON describes."""
    model = described["model"]
    if model["type"] == "WordPiece":
        continuing = model["continuing_subword_prefix"]
        return piece.removeprefix(continuing) if piece.startswith(continuing) else f" {piece}"
    if '"ByteLevel"' in json.dumps([described["pre_tokenizer"], described["decoder"]]):
        return text_of_byte_level(piece)
    if len(piece) == 6 and piece.startswith("<0x"):
        return bytes([int(piece[1:-1], 16)]).decode("utf-8", "replace")
    return piece.replace(METASPACE, " ")
