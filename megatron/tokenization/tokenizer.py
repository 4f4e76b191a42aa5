"""What the rest of the code knows of a tokenizer, whatever library stands behind it."""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from megatron.basics.errors import UserError
from megatron.basics.registry import Registry
from megatron.records.special_tokens import SpecialTokens

# Both libraries need some hundred bytes a character while they encode; parts keep a document of 100 MB within bounds.
PART_CHARACTERS = 500_000
ANCHORS = ("\n", ".", "(")  # some normalisers drop a line break, some pieces join a full stop with what follows

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
    fingerprint make the same token files. vocabulary_size: one more than the largest id, without padding. added: names
    of special tokens that the model does not have and that got the last ids of the vocabulary, in the order of ids.
    """

    tokenizer_type: str
    source: str
    fingerprint: str
    vocabulary_size: int
    special: SpecialTokens
    guarded: bool  # the library itself may find special tokens in text
    added: tuple[str, ...] = ()

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
        """Ids of each text in one thread, as the library makes them."""

    def encode(self, text: str) -> list[int]:
        """Ids of one text. Raises UnicodeEncodeError for lone surrogates, which are no text."""
        return [int(token) for token in self.encode_batch([text])[0]]

    def encode_batch(self, texts: list[str]) -> list[NDArray[np.int32]]:
        """Ids of several texts, int32 [n] each, in the thread that calls; much faster than one by one.

        A text of more than PART_CHARACTERS is encoded in parts that are cut before a space. Where no piece reaches
        across a space (our vocabularies, GPT-2, T5, BERT) the ids are those of the whole, but that a unigram model may
        choose differently between segmentations whose scores are equal up to rounding.

        Raises UnicodeEncodeError for lone surrogates, before any text is encoded.
        """
        _require_unicode(texts)
        if all(len(text) <= PART_CHARACTERS for text in texts):
            encoded = self._encode_whole(texts)
        else:
            encoded = [self._encode_parts(cut_before_spaces(text, PART_CHARACTERS)) for text in texts]
        if self.guarded:
            encoded = [self._without_special(text, ids) for text, ids in zip(texts, encoded, strict=True)]
        return encoded

    def encode_with_special(self, text: str) -> list[int]:
        """Ids of a text in which names of special tokens stand for the tokens: `one <extra_id_0> three`.

        A space before a name is its own, as what a sentinel hides begins with the space that opens a word. Raises
        UnicodeEncodeError for lone surrogates.
        """
        _require_unicode([text])
        id_of = {self.piece(token): token for token in self.special.ids()}
        names = "|".join(map(re.escape, sorted(id_of, key=len, reverse=True)))
        ids: list[int] = []
        for number, part in enumerate(re.split(f" ?({names})", text)):
            if number % 2:
                ids.append(id_of[part])
            elif part:
                ids += map(int, self._encode_continuation(part) if number else self._encode_whole([part])[0])
        return ids

    def decode_with_special(self, ids: Sequence[int]) -> str:
        """The text of token ids with the names of special tokens in it, each between spaces."""
        special = set(self.special.ids())
        parts: list[str] = []
        for is_special, run in itertools.groupby(ids, key=special.__contains__):
            tokens = list(run)
            parts += map(self.piece, tokens) if is_special else [self.decode(tokens).removeprefix(" ")]
        return " ".join(parts)

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

    def _without_special(self, text: str, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """`ids` of `text`, made again where special tokens are among them."""
        found = self._special_in(ids)
        if not len(found):
            return ids
        names = "|".join(re.escape(self.piece(token)) for token in found)
        starts = [
            match.start() + 1 for match in re.finditer(names, text)
        ]  # a cut behind its first letter breaks a name
        bounds = [0, *starts, len(text)]
        ids = self._encode_parts(text[begin:end] for begin, end in itertools.pairwise(bounds))
        # A normaliser can make a name of other characters, which no cut reaches.
        left = self._special_in(ids)
        return ids[~np.isin(ids, left)] if len(left) else ids

    def _special_in(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        special = np.array(sorted({*self.special.ids()} - {self.special.unknown}), dtype=np.int32)
        return np.intersect1d(ids, special)

    def _encode_parts(self, parts: Iterable[str]) -> NDArray[np.int32]:
        """Ids of a text that is cut into parts."""
        encoded: list[NDArray[np.int32]] = []
        for part in parts:
            encoded.append(self._encode_continuation(part) if encoded else self._encode_whole([part])[0])
        return np.concatenate(encoded)

    def _encode_continuation(self, part: str) -> NDArray[np.int32]:
        """Ids of a text that goes on: most tokenizers put a space before a text, but not behind an anchor."""
        for anchor in ANCHORS:
            before, joined = self._encode_whole([anchor, anchor + part])
            if len(before) and np.array_equal(joined[: len(before)], before):
                return joined[len(before) :]
        return self._encode_whole([part])[0]


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


def _require_unicode(texts: Iterable[str]) -> None:
    """Raise UnicodeEncodeError for a lone surrogate; the libraries' own errors differ, from version to version, too."""
    for text in texts:
        if not text.isascii():
            text.encode()


def load_tokenizer(
    tokenizer_type: str, tokenizer_model: str | None, add_special_tokens: Sequence[str] = ()
) -> Tokenizer:
    """The tokenizer of --tokenizer-type, --tokenizer-model and --add-special-tokens.

    Raises UserError, naming the flag, when the kind is unknown or the model is missing, unreadable or of another kind.
    Nothing is fetched: a Hugging Face tokenizer is a folder on this machine.
    """
    tokenizer_class = TOKENIZERS[tokenizer_type]
    if tokenizer_model is None:
        raise UserError(f"--tokenizer-model is missing; give the model file or folder of the {tokenizer_type}.")
    tokenizer: Tokenizer = tokenizer_class(tokenizer_model)
    if not add_special_tokens:
        return tokenizer
    from megatron.tokenization.extended_tokenizer import ExtendedTokenizer  # which is a Tokenizer itself

    return ExtendedTokenizer(tokenizer, add_special_tokens)
