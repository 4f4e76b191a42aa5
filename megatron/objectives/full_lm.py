"""Full language modelling: every token is predicted from all tokens before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from megatron.records.example import SequencePair
from megatron.records.window import Window


@dataclass(frozen=True, kw_only=True)
class FullLM:
    """FLM: no inputs, all tokens are targets. Radford et al. 2018, section 3.1; Wang et al. 2022, section 2.2.

    Window 5 6 7 8 9 with a document that begins at 7: inputs (), targets 5 6 7 8 9, document_starts 2.
    """

    produces: ClassVar[type] = SequencePair
    uses_randomness: ClassVar[bool] = False

    def __call__(self, window: Window, rng: np.random.Generator | None) -> tuple[SequencePair, ...]:
        """One example: the window itself."""
        nothing = np.zeros(0, np.int32)
        return (SequencePair(inputs=nothing, targets=window.tokens, document_starts=window.document_starts),)

    def window_length(self, seq_length: int) -> int:
        """One token more than positions: the last one is a label alone."""
        return seq_length + 1

    def stride(self, seq_length: int) -> int:
        """The last token of a window is the first of the next, so that every token is a label once."""
        return seq_length
