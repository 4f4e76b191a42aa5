"""A corpus as tokens: Megatron's pair of .bin and .idx, memory-mapped and checked when it is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megatron.basics.errors import UserError
from megatron.data.token_file_facts import TokenFileFacts
from megatron.data.token_index import REMAKE, TokenIndex, read_token_index

LARGEST_ID = np.iinfo(np.int32).max


@dataclass(frozen=True, eq=False)
class TokenFile:
    """An open pair. tokens: 1-D view of the whole .bin in the dtype that it is stored in.

    id_limit: ids from here on are refused as they are read; None where all of the file is known to be below it.
    """

    path: Path  # of the .bin
    tokens: NDArray[np.integer]
    index: TokenIndex
    id_limit: int | None

    def read(self, first: int, end: int) -> NDArray[np.int32]:
        """A copy of the tokens [first, end): int32 [end - first].

        Raises UserError, with the position, for an id that is negative or not in the vocabulary.
        """
        stored = self.tokens[first:end]
        if self.id_limit is not None and len(stored):
            self._check(stored, first)
        return stored.astype(np.int32)

    def _check(self, stored: NDArray[np.integer], first: int) -> None:
        assert self.id_limit is not None
        unsigned = stored.view(f"u{stored.dtype.itemsize}")  # negative ids look enormous: one pass finds both faults
        if int(unsigned.max()) < self.id_limit:
            return
        position = int(np.flatnonzero((stored < 0) | (stored >= self.id_limit))[0])
        raise UserError(
            f"{self.path} has token id {int(stored[position])} at position {first + position:,}, outside of the "
            f"vocabulary of {self.id_limit:,}; give the --tokenizer-model that made the file."
        )


def open_token_file(
    prefix: str, *, vocabulary_size: int | None = None, tokenizer_fingerprint: str | None = None
) -> TokenFile:
    """Open PREFIX.bin and PREFIX.idx, as written by Triarch or Megatron-LM.

    vocabulary_size: refuse ids from here on; None takes every id that int32 holds. tokenizer_fingerprint: refuse files
    whose PREFIX.json names another one; files without PREFIX.json are taken as they are, and their ids checked as they
    are read.

    Raises UserError, one sentence with file and mend, when either file is missing, the .bin is shorter or longer than
    the .idx says, the .idx is damaged, or the tokens are another tokenizer's.
    """
    path = Path(f"{prefix}.bin")
    index = read_token_index(Path(f"{prefix}.idx"))
    tokens = _mapped_tokens(path, index)
    facts = TokenFileFacts.read(prefix)
    if facts is not None:
        _check_facts(path, index, facts, vocabulary_size, tokenizer_fingerprint)
    limit = LARGEST_ID + 1 if vocabulary_size is None else vocabulary_size
    bounds = np.iinfo(index.dtype)
    known = facts is not None or (bounds.min >= 0 and bounds.max < limit)
    return TokenFile(path, tokens, index, None if known else limit)


def _mapped_tokens(path: Path, index: TokenIndex) -> NDArray[np.integer]:
    try:
        size, expected = path.stat().st_size, index.num_tokens * index.dtype.itemsize
        if size != expected:
            fault = "it was cut short" if size < expected else "the two do not belong together"
            raise UserError(
                f"{path} has {size:,} bytes where {index.path.name} speaks of {expected:,}: {fault}; {REMAKE}"
            )
        if not size:
            raise UserError(f"{path} holds no tokens; make it anew from text with tools/preprocess_data.py.")
        # A plain view: slicing numpy's memmap class costs more than copying a short window.
        return np.memmap(path, dtype=index.dtype, mode="r").view(np.ndarray)
    except FileNotFoundError:
        raise UserError(f"{path} is missing beside {index.path.name}; {REMAKE}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions and disk.") from error


def _check_facts(
    path: Path, index: TokenIndex, facts: TokenFileFacts, vocabulary_size: int | None, fingerprint: str | None
) -> None:
    described = (facts.tokens, facts.documents, facts.bin_bytes)
    found = (index.num_tokens, index.num_documents, index.num_tokens * index.dtype.itemsize)
    if described != found or not index.matches_crc32(facts.idx_crc32):
        raise UserError(f"{path.with_suffix('.json')} describes another {path.name} than the one beside it; {REMAKE}")
    if fingerprint is not None and facts.tokenizer_fingerprint != fingerprint:
        raise UserError(
            f"{path} was made by another tokenizer (a {facts.tokenizer_type} of {facts.vocabulary_size:,} tokens); "
            "give its --tokenizer-model, or preprocess the text again with this one."
        )
    if vocabulary_size is not None and facts.largest_token_id >= vocabulary_size:
        raise UserError(
            f"{path} has token ids up to {facts.largest_token_id:,}, outside of the vocabulary of {vocabulary_size:,}; "
            "give the --tokenizer-model that made the file."
        )
