"""The first import of megatron-core, without its import of a compiler.

megatron-core 0.16 decorates its fused functions with torch.compile where it defines them, and torch.compile imports
torch's whole compiler when it is called: two thirds of the time to the first step. Our configuration uses none of
these functions (modeling/config.py), so while megatron-core is imported torch.compile gives functions back as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch


def import_megatron_core() -> None:
    """Import megatron.core; nothing happens where it is imported already."""
    if "megatron.core" in sys.modules:
        return
    compile_function = torch.compile
    torch.compile = _leave_as_it_is  # type: ignore[assignment]
    try:
        import megatron.core  # noqa: F401
    finally:
        torch.compile = compile_function


def _leave_as_it_is(function: Callable[..., Any] | None = None, **_: Any) -> Callable[..., Any]:
    return (lambda decorated: decorated) if function is None else function
