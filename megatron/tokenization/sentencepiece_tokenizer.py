"""SentencePiece models: the `.model` files of `train_tokenizer`, T5, Llama and others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from megatron.basics.errors import UserError
from megatron.records.special_tokens import SpecialTokens
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

SPACE = "\u2581"  # SentencePiece writes a space so; the character itself is therefore read as a space


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model file behind the common interface.

    Raises UserError when `source` is no such file or lacks an end token.
    """

    tokenizer_type = "SentencePieceTokenizer"

    def __init__(self, source: str) -> None:
        content = _read_model(Path(source))
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=content)
        except (RuntimeError, OSError) as error:
            raise UserError(_no_model(source)) from error
        if not content:  # the library takes an empty file for a model without pieces
            raise UserError(_no_model(source))
        self.source = str(source)
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self.vocabulary_size = self._processor.get_piece_size()
        self.special = self._find_special_tokens()
        self.special.check(self.vocabulary_size, self.source)
        # Models made elsewhere may have them as user-defined symbols, which are looked for in the text.
        self.guarded = not all(
            self._processor.is_control(token) or self._processor.is_unknown(token) for token in self.special.ids()
        )

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """See Tokenizer."""
        return str(self._processor.decode([int(token) for token in ids]))

    def piece(self, token: int) -> str:
        """See Tokenizer."""
        return str(self._processor.id_to_piece(int(token)))

    def surfaces(self) -> list[str | None]:
        """See Tokenizer. A byte of a longer UTF-8 character stands for U+FFFD."""
        return [self._surface(token) for token in range(self.vocabulary_size)]

    def _encode_whole(self, texts: list[str]) -> list[NDArray[np.int32]]:
        # By itself the library starts a thread for each processor, in each of the workers.
        encoded: list[NDArray[np.int32]] = self._processor.encode(texts, return_type="numpy", num_threads=1)
        return encoded

    def _surface(self, token: int) -> str | None:
        processor = self._processor
        if processor.is_control(token) or processor.is_unknown(token) or processor.is_unused(token):
            return None
        piece = self.piece(token)
        if processor.is_byte(token):
            return bytes([int(piece[1:-1], 16)]).decode("utf-8", "replace")
        return piece.replace(SPACE, " ")

    def _find_special_tokens(self) -> SpecialTokens:
        processor = self._processor
        if processor.eos_id() < 0:
            raise UserError(f"--tokenizer-model {self.source} has no end token </s>; train one with train_tokenizer.")
        return SpecialTokens(
            end=processor.eos_id(),
            begin=processor.bos_id() if processor.bos_id() >= 0 else None,
            pad=processor.pad_id() if processor.pad_id() >= 0 else None,
            unknown=processor.unk_id(),
            mask=find_first(self._id_of, MASK_NAMES),
            classification=find_first(self._id_of, CLASSIFICATION_NAMES),
            separator=find_first(self._id_of, SEPARATOR_NAMES),
            sentinels=find_sentinels(self._id_of),
            mode_tokens=find_all(self._id_of, *MODE_SPELLINGS),
            fim_tokens=find_all(self._id_of, *FIM_SPELLINGS),
        )

    def _id_of(self, name: str) -> int | None:
        token = int(self._processor.piece_to_id(name))
        return None if token == self._processor.unk_id() else token


def _no_model(source: str) -> str:
    return (
        f"--tokenizer-model {source} is not a SentencePiece model; give the .model file of train_tokenizer, or add "
        "--tokenizer-type HuggingFaceTokenizer for a folder."
    )


def _read_model(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise UserError(
            f"--tokenizer-model {path} is a folder; a SentencePieceTokenizer is one .model file. For a Hugging Face "
            "tokenizer add --tokenizer-type HuggingFaceTokenizer."
        ) from None
    except OSError as error:
        raise UserError(f"--tokenizer-model {path} cannot be read: {error.strerror}.") from error
