"""What an objective makes of a window: neutral examples that know nothing of architectures."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


def _no_positions() -> NDArray[np.int32]:
    return np.zeros(0, np.int32)


@dataclass(frozen=True, eq=False)
class SequencePair:
    """Targets to be predicted after the inputs: for decoders and encoder-decoders.

    inputs: int32 [i], may be empty. targets: int32 [t]. document_starts: int32 [d], positions in inputs + targets where
    a document begins. is_complete: inputs and targets each are wholes and not parts of a running text, so that an end
    token is put behind the targets where they are arranged, and with `ends_inputs` another one behind the inputs.
    """

    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    document_starts: NDArray[np.int32] = field(default_factory=_no_positions)
    is_complete: bool = False
    ends_inputs: bool = True

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            tokens = getattr(self, name)
            if tokens.ndim != 1 or tokens.dtype != np.int32:
                raise ValueError(f"{name} must be int32 [n], not {tokens.dtype} {list(tokens.shape)}")

    def ended(self, end_token: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(inputs, targets) with the end tokens of a complete example: int32 [i or i + 1], int32 [t or t + 1]."""
        if not self.is_complete:
            return self.inputs, self.targets
        end = np.full(1, end_token, np.int32)
        inputs = np.concatenate([self.inputs, end]) if self.ends_inputs else self.inputs
        return inputs, np.concatenate([self.targets, end])


@dataclass(frozen=True, eq=False)
class RunningText(SequencePair):
    """A pair that gives nothing to begin with: for decoders, which predict each token from those before it."""


Example = SequencePair
