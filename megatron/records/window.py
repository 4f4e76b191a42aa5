"""A stretch of the corpus, before any objective has looked at it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Window:
    """Consecutive tokens of one split.

    tokens: int32 [n]. document_starts: int32 [d], increasing positions in the window where a document begins; position
    0 is listed only when a document begins exactly there. index: the sample's number in the run. num_inputs: the first
    tokens that are the inputs of an example whose targets are the others; None in a text, which has neither.
    """

    tokens: NDArray[np.int32]
    document_starts: NDArray[np.int32]
    index: int = 0
    num_inputs: int | None = None

    def __post_init__(self) -> None:
        if self.tokens.ndim != 1 or self.tokens.dtype != np.int32:
            raise ValueError(f"tokens must be int32 [n], not {self.tokens.dtype} {list(self.tokens.shape)}")

    def documents(self) -> list[Window]:
        """The window cut where documents begin, none of the parts empty."""
        cuts = [0, *(int(start) for start in self.document_starts if start > 0), len(self.tokens)]
        nothing = np.zeros(0, np.int32)
        return [Window(self.tokens[begin:end], nothing, self.index) for begin, end in itertools.pairwise(cuts)]
