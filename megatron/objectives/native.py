"""The compiled half of the objectives: csrc/corruption."""

from __future__ import annotations

from types import ModuleType

from megatron.basics.native_extension import native_extension


def native_corruption() -> ModuleType | None:
    """The extension, or None where numpy does its work."""
    return native_extension("megatron.objectives.corruption_native", "corruption", "numpy")
