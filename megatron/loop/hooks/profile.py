"""A torch profiler trace of some steps, for chrome://tracing or Perfetto."""

from __future__ import annotations

import os
from pathlib import Path

from torch.profiler import profile

from megatron.loop.hooks.protocol import Hook, RunFacts
from megatron.loop.hooks.registry import HookSetup
from megatron.loop.report import StepReport


class ProfileHook(Hook):
    """Traces steps `first` to `last` on every rank into RUN/profile/rank_00000.json."""

    def __init__(self, first: int, last: int, folder: Path) -> None:
        self.first, self.last, self.folder = first, last, folder
        self._profiler: profile | None = None

    @classmethod
    def for_run(cls, setup: HookSetup) -> ProfileHook | None:
        """--profile-steps FIRST LAST; a rule of the command line sees to it that there is a run folder."""
        if not setup.logging.profile_steps or setup.run_folder is None:
            return None
        first, last = setup.logging.profile_steps
        return cls(first, last, setup.run_folder / "profile")

    def on_start(self, facts: RunFacts) -> None:
        """A run that resumes inside of the range traces the rest of it."""
        self._start_before(facts.start_iteration + 1)

    def on_step(self, report: StepReport) -> None:
        """Begin before step `first`, write after step `last`."""
        if report.iteration == self.last:
            self._write()
        self._start_before(report.iteration + 1)

    def on_end(self) -> None:
        """Keep what was traced when the run ends before `last`."""
        self._write()

    def _start_before(self, iteration: int) -> None:
        if self._profiler is None and self.first <= iteration <= self.last:
            self._profiler = profile()
            self._profiler.start()

    def _write(self) -> None:
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"rank_{int(os.environ.get('RANK', '0')):05d}.json"
        aside = path.with_suffix(".tmp")
        profiler.export_chrome_trace(str(aside))
        aside.rename(path)
