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
    return {
        name: TokenRange(index.document_offset(documents.start), index.document_offset(documents.stop))
        for name, documents in split_documents(index.num_documents, weights).items()
    }


def split_documents(num_documents: int, weights: tuple[float, float, float]) -> dict[str, range]:
    """The documents of each split by name; weights sum to 1."""
    shares = [0.0, weights[0], weights[0] + weights[1], 1.0]
    cuts = [round(share * num_documents) for share in shares]
    return {name: range(cuts[i], cuts[i + 1]) for i, name in enumerate(SPLIT_NAMES)}


def whole_file(index: TokenIndex) -> TokenRange:
    """All tokens of a file, where a path was given for one split alone."""
    return TokenRange(0, index.num_tokens)
