"""Which objectives an architecture can be trained with: those whose examples it accepts."""

from __future__ import annotations

from megatron.architectures.registry import ARCHITECTURES
from megatron.objectives.registry import OBJECTIVES


def legal_objectives(architecture: str) -> list[str]:
    """Names of the objectives whose `produces` is among the architecture's `accepts`. Imports no torch."""
    accepts = ARCHITECTURES[architecture].accepts
    return [name for name in OBJECTIVES if OBJECTIVES[name].produces in accepts]
