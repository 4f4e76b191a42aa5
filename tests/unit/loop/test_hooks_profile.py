"""A trace of the steps that were asked for, and of no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from megatron.loop.hooks.profile import ProfileHook
from tests.unit.loop.hook_reports import facts, setup, step_report


def train(folder: Path, first: int, last: int) -> None:
    """Steps `first` to `last` of a run, each with one matrix product whose size is its number."""
    hook = ProfileHook.for_run(setup(folder, profile_steps=[3, 4]))
    assert hook is not None
    hook.on_start(facts(folder, first - 1))
    for iteration in range(first, last + 1):
        with torch.profiler.record_function(f"step {iteration}"):
            torch.ones(iteration, 5) @ torch.ones(5, 5)
        hook.on_step(step_report(iteration))
    hook.on_end()


@pytest.mark.parametrize(
    ("first", "last", "traced"),
    [(1, 6, {"step 3", "step 4"}), (3, 6, {"step 3", "step 4"}), (1, 3, {"step 3"})],
    ids=["in the middle", "from the start of a resumed run", "of a run that stops early"],
)
def test_the_trace_holds_the_steps_asked_for(tmp_path: Path, first: int, last: int, traced: set[str]) -> None:
    train(tmp_path, first, last)
    (trace,) = (tmp_path / "profile").iterdir()
    assert trace.name == "rank_00000.json"
    events = json.loads(trace.read_text())["traceEvents"]
    assert {event["name"] for event in events if event["name"].startswith("step ")} == traced


def test_a_run_that_never_gets_there_leaves_nothing(tmp_path: Path) -> None:
    train(tmp_path, 5, 6)
    assert list(tmp_path.iterdir()) == []


def test_only_when_asked_for(tmp_path: Path) -> None:
    assert ProfileHook.for_run(setup(tmp_path)) is None
