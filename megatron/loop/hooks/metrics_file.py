"""metrics.jsonl: one JSON object per step and per validation, one clean history across stops and restarts."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.basics.atomic_files import atomic_writer, raise_for_disk
from megatron.loop.hooks.protocol import Hook, RunFacts
from megatron.loop.hooks.registry import HookSetup
from megatron.loop.report import StepReport, ValidationReport

FILE_NAME = "metrics.jsonl"


class MetricsFileHook(Hook):
    """Appends to RUN/metrics.jsonl on rank 0; each line is in the kernel's hands before the next step begins.

    A full disk does not stop the run: lines wait in memory, and no part of a line is left in the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._waiting = b""

    @classmethod
    def for_run(cls, setup: HookSetup) -> MetricsFileHook | None:
        """Only a run with a folder has the file."""
        return cls(setup.run_folder / FILE_NAME) if setup.run_folder else None

    def on_start(self, facts: RunFacts) -> None:
        """Cut what a later, lost part of the run wrote, and open the file for appending."""
        if not facts.is_main:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            cut_after(self.path, facts.start_iteration, with_validation=not facts.owes_validation)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise_for_disk(error, self.path)

    def on_step(self, report: StepReport) -> None:
        """One line."""
        self._append(report.as_metrics())

    def on_validation(self, report: ValidationReport) -> None:
        """One line; its iteration is that of the step before it."""
        self._append(report.as_metrics())

    def on_end(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, metrics: Mapping[str, Any]) -> None:
        if self._descriptor is None:
            return
        had_to_wait = bool(self._waiting)
        self._waiting += json_line(metrics)
        end = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, self._waiting)
            if written == len(self._waiting):
                self._waiting = b""
                return
            reason = "the disk is full"
        except OSError as error:
            reason = os.strerror(error.errno or 0)
        os.ftruncate(self._descriptor, end)
        if not had_to_wait:
            print(f"warning: {self.path} could not be written ({reason}); its lines wait in memory.", file=sys.stderr)


def json_line(metrics: Mapping[str, Any]) -> bytes:
    """One line of strict JSON: numbers that are not finite, which JSON does not know, become null."""
    return (json.dumps({name: _finite(value) for name, value in metrics.items()}, allow_nan=False) + "\n").encode()


def cut_after(path: Path, iteration: int, *, with_validation: bool = True) -> None:
    """Leave only whole lines of iterations up to `iteration`; atomically, and only when something has to go.

    Without `with_validation` that of `iteration` itself goes too: an earlier start may have made up for it.
    """
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and _place_of(line) <= (iteration, with_validation)]
    if len(kept) < len(lines):
        with atomic_writer(path) as file:
            file.writelines(kept)


def _place_of(line: bytes) -> tuple[float, bool]:
    """(iteration, is a validation) of a line; infinite for one that is not ours, e.g. torn by a crash."""
    try:
        content = json.loads(line)
        return int(content["iteration"]), "validation-time" in content
    except (ValueError, KeyError, TypeError):
        return math.inf, False


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
