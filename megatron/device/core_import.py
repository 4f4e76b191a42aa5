"""The first import of megatron-core, without what it imports and a run here never uses.

megatron-core 0.16 decorates its fused functions with torch.compile where it defines them, and torch.compile imports
torch's whole compiler when it is called: two thirds of the time that megatron-core takes to import. Our configuration
uses none of these functions (modeling/config.py), so meanwhile torch.compile gives functions back as they are. Its
timers import TensorBoard and Weights & Biases where they are installed; our hooks do so when a run asks for them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

_FOR_ITS_TIMERS = ("torch.utils.tensorboard", "wandb")


def import_megatron_core() -> None:
    """Import megatron.core; nothing happens where it is imported already."""
    if "megatron.core" in sys.modules:
        return
    compile_function = torch.compile
    hidden = [name for name in _FOR_ITS_TIMERS if name not in sys.modules]
    torch.compile = _leave_as_it_is  # type: ignore[assignment]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: importing it is an ImportError
    try:
        import megatron.core  # noqa: F401
    finally:
        torch.compile = compile_function
        for name in hidden:
            del sys.modules[name]


def _leave_as_it_is(function: Callable[..., Any] | None = None, **_: Any) -> Callable[..., Any]:
    return (lambda decorated: decorated) if function is None else function
