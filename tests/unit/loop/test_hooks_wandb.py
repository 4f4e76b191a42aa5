"""Weights & Biases is told the run, its settings and every step; a stand-in for the package listens."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from megatron.loop.hooks.wandb import WandbHook
from tests.unit.loop.hook_reports import facts, setup, step_report, validation_report


class Listener(ModuleType):
    def __init__(self) -> None:
        super().__init__("wandb")
        self.starts: list[dict[str, Any]] = []
        self.lines: list[tuple[int, dict[str, Any]]] = []
        self.finished = 0

    def init(self, **settings: Any) -> Listener:
        self.starts.append(settings)
        return self

    def log(self, metrics: dict[str, Any], step: int) -> None:
        self.lines.append((step, metrics))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Listener:
    listener = Listener()
    monkeypatch.setitem(sys.modules, "wandb", listener)
    return listener


def run_once(folder: Path | None, is_main: bool = True) -> None:
    hook = WandbHook.for_run(setup(folder, wandb_project="which-one-wins"))
    assert hook is not None
    hook.on_start(facts(folder, is_main=is_main))
    hook.on_step(step_report(3))
    hook.on_validation(validation_report(3))
    hook.on_end()


def test_a_run_and_its_restart_are_one(listener: Listener, tmp_path: Path) -> None:
    run_once(tmp_path / "a")
    run_once(tmp_path / "a")
    run_once(tmp_path / "b")
    first, again, other = listener.starts
    assert (first["project"], first["name"], first["config"]) == ("which-one-wins", "a", {"lr": 1e-3})
    assert first["id"] == again["id"] != other["id"]
    assert first["resume"] == "allow"
    step, metrics = listener.lines[0]
    assert (step, metrics["lm loss"]) == (3, pytest.approx(10 / 3))
    assert listener.lines[1][1]["lm loss validation"] == 2.0
    assert listener.finished == 3


def test_other_ranks_do_not_call_it(listener: Listener, tmp_path: Path) -> None:
    run_once(tmp_path, is_main=False)
    assert listener.starts == listener.lines == []


def test_a_run_without_a_folder_is_always_a_new_one(listener: Listener) -> None:
    run_once(None)
    assert listener.starts[0]["id"] is None
