"""The table of hooks, and the hooks of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from megatron.basics.registry import Registry
from megatron.loop.hooks.protocol import Hook
from megatron.loop.options import LoggingOptions

HOOKS = Registry(
    "hook",
    {
        "log": "megatron.loop.hooks.log:LogHook",
        "metrics_file": "megatron.loop.hooks.metrics_file:MetricsFileHook",
        "tensorboard": "megatron.loop.hooks.tensorboard:TensorBoardHook",
        "wandb": "megatron.loop.hooks.wandb:WandbHook",
        "profile": "megatron.loop.hooks.profile:ProfileHook",
    },
)


@dataclass(frozen=True, kw_only=True)
class HookSetup:
    """What decides the hooks of a run: its logging section, its folder (--save or None), all its settings as values."""

    logging: LoggingOptions
    run_folder: Path | None
    settings: Mapping[str, Any]


class HookClass(Protocol):
    """What the table's entries are."""

    @classmethod
    def for_run(cls, setup: HookSetup) -> Hook | None:
        """The hook, or None when this run did not ask for it."""


def build_hooks(setup: HookSetup) -> list[Hook]:
    """Every hook of the table that the run asks for, in the table's order."""
    classes: list[HookClass] = [HOOKS[name] for name in HOOKS]
    return [hook for hook_class in classes if (hook := hook_class.for_run(setup)) is not None]
