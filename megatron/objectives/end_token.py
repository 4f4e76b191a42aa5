"""The end token behind a complete example, of which a window may bring one of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def without_end(tokens: NDArray[np.int32], end_token: int) -> NDArray[np.int32]:
    """The tokens but for an end token at their end, because complete examples get one of their own."""
    return tokens[:-1] if len(tokens) and tokens[-1] == end_token else tokens
