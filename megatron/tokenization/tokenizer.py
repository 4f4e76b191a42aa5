"""What the rest of the code knows of a tokenizer, whatever library stands behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from megatron.basics.errors import UserError
from megatron.basics.registry import Registry
from megatron.tokenization.special_tokens import SpecialTokens

# Both libraries need some hundred bytes a character while they encode; parts keep a document of 100 MB within bounds.
PART_CHARACTERS = 500_000
ANCHOR = "\n"

TOKENIZERS = Registry(
    "--tokenizer-type",
    {
        "SentencePieceTokenizer": "megatron.tokenization.sentencepiece_tokenizer:SentencePieceTokenizer",
        "HuggingFaceTokenizer": "megatron.tokenization.hugging_face_tokenizer:HuggingFaceTokenizer",
    },
)


class Tokenizer(ABC):
    """Text to token ids and back.

    Text never makes special tokens: the characters "</s>" or "<extra_id_0>" in a document are encoded as characters.
    Special tokens enter by their ids alone, and `decode` leaves them out.

    source: path of the model. fingerprint: SHA-256 of what decides the ids, 64 hex digits; two tokenizers with the same
    fingerprint make the same token files. vocabulary_size: one more than the largest id, without padding.
    """

    tokenizer_type: str
    source: str
    fingerprint: str
    vocabulary_size: int
    special: SpecialTokens

    @abstractmethod
    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text of token ids; special tokens leave no trace. Ids must be below vocabulary_size."""

    @abstractmethod
    def piece(self, token: int) -> str:
        """The name that the vocabulary has for an id, e.g. `▁the`, `##ing`, `<extra_id_0>`."""

    @abstractmethod
    def surfaces(self) -> list[str | None]:
        """For each id the text that it stands for, with the space that opens a word; None for special tokens."""

    @abstractmethod
    def _encode_whole(self, texts: list[str]) -> list[NDArray[np.int32]]:
        """Ids of each text in one thread, without special tokens."""

    def encode(self, text: str) -> list[int]:
        """Ids of one text. Raises UnicodeEncodeError for lone surrogates, which are no text."""
        return [int(token) for token in self.encode_batch([text])[0]]

    def encode_batch(self, texts: list[str]) -> list[NDArray[np.int32]]:
        """Ids of several texts, int32 [n] each, in the thread that calls; much faster than one by one.

        A text of more than PART_CHARACTERS is encoded in parts that are cut before a space. Vocabularies whose pieces
        do not reach across a space (those of `train_tokenizer`, GPT-2, T5, BERT) give the same ids as in one go.
        """
        if all(len(text) <= PART_CHARACTERS for text in texts):
            return self._encode_whole(texts)
        return [self._encode_in_parts(text) for text in texts]

    @property
    def eod_id(self) -> int:
        """Ends a document, and a target."""
        return self.special.end

    @property
    def pad_id(self) -> int:
        """Fills rows; `eod_id` where a vocabulary has no padding token, harmless because padding carries no loss."""
        return self.special.end if self.special.pad is None else self.special.pad

    @property
    def mask_id(self) -> int | None:
        """Hides a token in masked language modelling."""
        return self.special.mask

    @property
    def sentinel_ids(self) -> tuple[int, ...]:
        """The k-th stands for the k-th gap; empty in vocabularies without sentinels."""
        return self.special.sentinels

    def _encode_in_parts(self, text: str) -> NDArray[np.int32]:
        anchor = self._encode_whole([ANCHOR])[0]
        encoded: list[NDArray[np.int32]] = []
        for part in cut_before_spaces(text, PART_CHARACTERS):
            if not encoded:
                encoded += self._encode_whole([part])
                continue
            # Most tokenizers put a space before a text. Behind a line break the part is no beginning and gets none.
            (ids,) = self._encode_whole([ANCHOR + part])
            behind_anchor = np.array_equal(ids[: len(anchor)], anchor)
            encoded.append(ids[len(anchor) :] if behind_anchor else self._encode_whole([part])[0])
        return np.concatenate(encoded)


def cut_before_spaces(text: str, length: int) -> Iterator[str]:
    """Parts of at most `length` characters that join to `text`; all but the first begin at a single space if possible.

    list(cut_before_spaces("one two three", 8)) == ["one two", " three"].
    """
    start = 0
    while len(text) - start > length:
        end = text.rfind(" ", start + 1, start + length)
        # A cut inside a run of spaces would part what a vocabulary may hold as one piece.
        while end > start and (text[end - 1].isspace() or text[end + 1].isspace()):
            end = text.rfind(" ", start + 1, end)
        end = end if end > start else start + length
        yield text[start:end]
        start = end
    yield text[start:]


def load_tokenizer(tokenizer_type: str, tokenizer_model: str | None) -> Tokenizer:
    """The tokenizer of --tokenizer-type and --tokenizer-model.

    Raises UserError, naming the flag, when the kind is unknown or the model is missing, unreadable or of another kind.
    Nothing is fetched: a Hugging Face tokenizer is a folder on this machine.
    """
    tokenizer_class = TOKENIZERS[tokenizer_type]
    if tokenizer_model is None:
        raise UserError(f"--tokenizer-model is missing; give the model file or folder of the {tokenizer_type}.")
    return tokenizer_class(tokenizer_model)
