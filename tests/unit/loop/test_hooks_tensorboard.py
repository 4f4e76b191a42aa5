"""TensorBoard's own reader sees Megatron's tags, and one history over a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.loop.hooks.tensorboard import TensorBoardHook
from tests.unit.loop.hook_reports import facts, setup, step_report, validation_report


def write_part(folder: Path, first: int, last: int) -> None:
    hook = TensorBoardHook.for_run(setup(folder))
    assert hook is not None
    hook.on_start(facts(folder, first - 1))
    for iteration in range(first, last + 1):
        hook.on_step(step_report(iteration, loss_scale=8.0))
        if iteration % 4 == 0:
            hook.on_validation(validation_report(iteration))
    hook.on_end()


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_megatrons_tags(tmp_path: Path) -> None:
    write_part(tmp_path, 1, 4)
    read = curves(tmp_path / "tensorboard")
    assert [step for step, _ in read["lm loss"]] == [1, 2, 3, 4]
    assert [value for _, value in read["lm loss"]] == pytest.approx([10 / n for n in (1, 2, 3, 4)])
    assert {
        *("learning-rate", "batch-size", "grad-norm", "loss-scale", "iteration-time", "throughput"),
        *("lm loss validation", "lm loss validation ppl"),
    } <= read.keys()
    assert read["lm loss validation"] == [(4, 2.0)]
    by_samples = curves(tmp_path / "tensorboard" / "samples")
    assert [step for step, _ in by_samples["lm loss vs samples"]] == [4, 8, 12, 16]
    assert {"learning-rate vs samples", "grad-norm vs samples", "lm loss validation vs samples"} <= by_samples.keys()


def test_a_restart_replaces_what_it_does_again_and_keeps_the_rest(tmp_path: Path) -> None:
    write_part(tmp_path, 1, 7)
    write_part(tmp_path, 5, 9)
    read = curves(tmp_path / "tensorboard")
    assert [step for step, _ in read["lm loss"]] == list(range(1, 10))
    by_samples = curves(tmp_path / "tensorboard" / "samples")
    assert [step for step, _ in by_samples["lm loss vs samples"]] == [4 * n for n in range(1, 10)]


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    hook = TensorBoardHook(tmp_path / "tensorboard")
    hook.on_start(facts(tmp_path, is_main=False))
    hook.on_step(step_report(1))
    hook.on_validation(validation_report(1))
    hook.on_end()
    assert list(tmp_path.iterdir()) == []
