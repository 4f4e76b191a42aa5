"""Weights & Biases, when the package is installed and --wandb-project asks for it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.basics.seeds import seed_for
from megatron.loop.hooks.protocol import Hook, RunFacts
from megatron.loop.hooks.registry import HookSetup
from megatron.loop.report import StepReport, ValidationReport


class WandbHook(Hook):
    """Logs every step from rank 0; a restarted run continues the same curves.

    The run's id is a function of its folder, so that nothing has to be remembered between starts.
    """

    def __init__(self, project: str, run_folder: Path | None, settings: Mapping[str, Any]) -> None:
        self.project, self.run_folder, self.settings = project, run_folder, settings
        self._run: Any = None

    @classmethod
    def for_run(cls, setup: HookSetup) -> WandbHook | None:
        """Only when asked for; that the package is there was checked with the command line."""
        project = setup.logging.wandb_project
        return cls(project, setup.run_folder, setup.settings) if project else None

    def on_start(self, facts: RunFacts) -> None:
        """Open the run, or take up the one that this folder began."""
        if not facts.is_main:
            return
        folder = self.run_folder.absolute() if self.run_folder else None
        self._run = importlib.import_module("wandb").init(
            project=self.project,
            name=folder.name if folder else None,
            id=f"{seed_for(0, 'wandb', str(folder)):016x}" if folder else None,
            resume="allow" if folder else None,
            dir=str(folder) if folder else None,
            config=dict(self.settings),
        )

    def on_step(self, report: StepReport) -> None:
        """The figures of metrics.jsonl."""
        self._log(report.as_metrics())

    def on_validation(self, report: ValidationReport) -> None:
        """The figures of metrics.jsonl."""
        self._log(report.as_metrics())

    def on_end(self) -> None:
        """Send what is left."""
        if self._run is not None:
            self._run.finish()

    def _log(self, metrics: Mapping[str, Any]) -> None:
        if self._run is not None:
            self._run.log(
                {name: value for name, value in metrics.items() if value is not None}, step=metrics["iteration"]
            )
