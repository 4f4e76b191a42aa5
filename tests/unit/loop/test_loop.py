"""The order of a run: steps, validations, saves, stops; and what is closed however it ends."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hook_reports import facts

from megatron.basics.errors import EXIT_DONE, EXIT_STOPPED_AFTER_SAVING
from megatron.checkpoint.contents import Progress
from megatron.checkpoint.options import CheckpointOptions
from megatron.loop import loop
from megatron.loop.batch_ramp import BatchRamp
from megatron.loop.hooks.protocol import Hook
from megatron.loop.loop import Training
from megatron.loop.options import BatchOptions, LoggingOptions, OptimizerOptions
from megatron.loop.step import StepResult
from megatron.loop.stop_signal import StopSignal
from megatron.loop.throughput import Throughput

EVENTS = ("step", "validation", "save")


class Run:
    """A Training whose steps, validations and saves only write down that they happened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changed: Any) -> None:
        self.events: list[str] = []
        self.stop_signal = StopSignal()
        self.signal_in_step = 0
        self.fails_in_step = 0
        self.saved: list[Progress] = []
        monkeypatch.setattr(loop, "train_step", self._train_step)
        monkeypatch.setattr(loop, "validate", lambda *_: self.note("validation") or {"lm loss": 1.0})
        self.training = self._training(**changed)

    def note(self, event: str) -> None:
        self.events.append(f"{event} {self.training.progress.iteration}" if event in EVENTS else event)

    def run(self) -> int:
        return self.training.run()

    def _train_step(self, *_: Any, asks: Any, **__: Any) -> StepResult:
        self.note("step")
        iteration = self.training.progress.iteration + 1
        if iteration == self.fails_in_step:
            raise ZeroDivisionError
        if iteration == self.signal_in_step:
            self.stop_signal.received = SimpleNamespace(name="SIGTERM")
        return StepResult({"lm loss": (4.0, 4.0)}, 1.0, False, None, None, list(asks()))

    def _save(self, progress: Progress, *, wait: bool) -> None:
        self.note("save")
        self.saved.append(progress)
        self.saver.saved_iteration = progress.iteration

    def _source(self, name: str) -> Any:
        return SimpleNamespace(microbatches=lambda *_: iter(()), close=lambda: self.note(f"{name} closed"))

    def _training(self, **changed: Any) -> Training:
        self.saver: Any = SimpleNamespace(
            has_unwritten=False,
            has_pending=False,
            saved_iteration=None,
            finish=lambda: None,
            remove_surplus=lambda _: None,
            save=self._save,
        )
        parts: dict[str, Any] = {
            **dict.fromkeys(("model", "rule")),
            "grid": SimpleNamespace(world_size=1),
            "device": SimpleNamespace(clock=time.monotonic, peak_memory_bytes=lambda: 0),
            "train_source": self._source("train"),
            "valid_source": self._source("valid"),
            "ramp": BatchRamp(BatchOptions(), 1),
            "throughput": Throughput(1.0),
            "optimizer": OptimizerOptions(),
            "logging": LoggingOptions(eval_interval=2),
            "checkpoint": CheckpointOptions(save="run", save_interval=2),
            "train_iters": 5,
            "tokens_per_sample": 4,
            "seed": 1,
            "hooks": [ClosingHook(self)],
            "facts": facts(None),
            "started": time.monotonic(),
            "saver": self.saver,
            "contents_at": lambda progress: progress,
            "stop_signal": self.stop_signal,
            "progress": Progress(),
            "say": lambda _: None,
        }
        return Training(**{**parts, **changed})


class ClosingHook(Hook):
    def __init__(self, run: Run, name: str = "hook", fails: bool = False) -> None:
        self.run, self.name, self.fails = run, name, fails

    def on_start(self, facts: Any) -> None:
        if self.fails:
            raise ZeroDivisionError

    def on_end(self) -> None:
        self.run.note(f"{self.name} closed")


CLOSED = ["hook closed", "valid closed", "train closed"]


def test_an_undisturbed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    assert run.run() == EXIT_DONE
    assert run.events == [
        *("step 0", "step 1", "validation 2", "save 2", "step 2", "step 3", "validation 4", "save 4"),
        *("step 4", "validation 5", "save 5", *CLOSED),
    ]
    assert not any(progress.owes_validation for progress in run.saved)


@pytest.mark.parametrize("iteration", [1, 2, 5])
def test_a_signal_is_acted_on_in_its_own_step_and_before_a_validation(
    iteration: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(monkeypatch)
    run.signal_in_step = iteration
    assert run.run() == EXIT_STOPPED_AFTER_SAVING
    assert run.events[-5:] == [f"step {iteration - 1}", f"save {iteration}", *CLOSED]
    assert run.saved[-1].owes_validation == (iteration in (2, 5))


@pytest.mark.parametrize("iteration", [2, 5])
def test_the_next_start_makes_up_for_the_validation(iteration: int, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress(iteration=iteration, owes_validation=True)
    run = Run(monkeypatch, progress=progress)
    assert run.run() == EXIT_DONE
    assert run.events[0] == f"validation {iteration}"
    assert run.events.count(f"validation {iteration}") == 1
    assert not any(progress.owes_validation for progress in run.saved)


def test_a_planned_stop_validates_first(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, logging=LoggingOptions(eval_interval=2, exit_interval=2))
    assert run.run() == EXIT_STOPPED_AFTER_SAVING
    assert run.events == ["step 0", "step 1", "validation 2", "save 2", *CLOSED]


def test_minutes_count_from_the_start_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was spent on imports, data and loading is a part of them."""
    run = Run(monkeypatch, logging=LoggingOptions(exit_duration_in_mins=10.0), started=time.monotonic() - 601.0)
    assert run.run() == EXIT_STOPPED_AFTER_SAVING
    assert run.events == ["step 0", "save 1", *CLOSED]


def test_everything_is_closed_when_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, progress=Progress(iteration=5))
    assert run.run() == EXIT_DONE
    assert run.events == CLOSED


def test_everything_is_closed_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.fails_in_step = 2
    with pytest.raises(ZeroDivisionError):
        run.run()
    assert run.events == ["step 0", "step 1", *CLOSED]


def test_a_hook_that_cannot_start_closes_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.training = replace(run.training, hooks=[ClosingHook(run), ClosingHook(run, "broken", fails=True)])
    with pytest.raises(ZeroDivisionError):
        run.run()
    assert run.events == ["broken closed", *CLOSED]
