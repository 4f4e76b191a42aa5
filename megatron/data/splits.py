"""Training, validation and test: each file's documents cut into three runs of neighbours, as Megatron-LM does."""

from __future__ import annotations

from dataclasses import dataclass

from megatron.data.token_index import TokenIndex

SPLIT_NAMES = ("train", "valid", "test")


@dataclass(frozen=True)
class TokenRange:
    """Tokens [begin, end) of a token file, whole documents."""

    begin: int
    end: int

    @property
    def num_tokens(self) -> int:
        """How many tokens the range holds."""
        return self.end - self.begin


def split_ranges(index: TokenIndex, weights: tuple[float, float, float]) -> dict[str, TokenRange]:
    """The tokens of each split by name; weights sum to 1. Cuts fall on the document nearest to each share."""
    shares = [0.0, weights[0], weights[0] + weights[1], 1.0]
    documents = [round(share * index.num_documents) for share in shares]
    offsets = [index.document_offset(document) for document in documents]
    return {name: TokenRange(offsets[i], offsets[i + 1]) for i, name in enumerate(SPLIT_NAMES)}


def whole_file(index: TokenIndex) -> TokenRange:
    """All tokens of a file, where a path was given for one split alone."""
    return TokenRange(0, index.num_tokens)
