"""The learning rate against megatron-core's scheduler, and the laws that every shape obeys."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from megatron.loop.options import DECAY_STYLES, OptimizerOptions
from megatron.loop.schedule import FINAL_DECAYS, lr_at


def megatron_rates(options: OptimizerOptions, train_iters: int, steps: int) -> list[float]:
    """What megatron-core's scheduler holds after 1, 2, ... steps."""
    optimizer = SimpleNamespace(param_groups=[{}])
    scheduler = OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=options.lr,
        min_lr=options.min_lr,
        lr_warmup_steps=options.lr_warmup_iters,
        lr_decay_steps=options.lr_decay_iters or train_iters,
        lr_decay_style=options.lr_decay_style,
        start_wd=0.0,
        end_wd=0.0,
        wd_incr_steps=1,
        wd_incr_style="constant",
        wsd_decay_steps=options.lr_wsd_decay_iters,
        lr_wsd_decay_style=options.lr_wsd_decay_style,
    )
    rates = []
    for _ in range(steps):
        scheduler.step(1)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@st.composite
def schedules(draw: st.DrawFn) -> tuple[OptimizerOptions, int]:
    end = draw(st.integers(2, 60))
    warmup = draw(st.integers(0, end - 1))
    style = draw(st.sampled_from(DECAY_STYLES))
    lr = draw(st.floats(1e-6, 1.0))
    settings: dict[str, Any] = {"lr": lr, "lr_decay_style": style, "lr_warmup_iters": warmup}
    if style != "constant":
        settings |= {"min_lr": lr * draw(st.sampled_from([0.0, 0.1, 1.0])), "lr_decay_iters": end}
    if style == "WSD":
        settings["lr_wsd_decay_iters"] = draw(st.integers(1, end - warmup))
        settings["lr_wsd_decay_style"] = draw(st.sampled_from(sorted(FINAL_DECAYS)))
    options = OptimizerOptions(**settings)
    return options, end


@given(schedules())
def test_every_shape_is_megatrons(schedule: tuple[OptimizerOptions, int]) -> None:
    options, end = schedule
    steps = end + 5
    ours = [lr_at(options, iteration, train_iters=10**6) for iteration in range(1, steps + 1)]
    assert ours == pytest.approx(megatron_rates(options, 10**6, steps), rel=1e-12, abs=1e-18)


@given(schedules())
def test_rates_stay_between_zero_and_the_peak_and_only_rise_in_the_warm_up(
    schedule: tuple[OptimizerOptions, int],
) -> None:
    options, end = schedule
    rates = [lr_at(options, iteration, end) for iteration in range(1, end + 3)]
    assert all(0.0 <= rate <= options.lr * (1 + 1e-12) for rate in rates)
    rounding = options.lr * 1e-12
    warmup = options.lr_warmup_iters
    for number, (rate, following) in enumerate(itertools.pairwise(rates), start=1):
        assert following >= rate - rounding if number < warmup else following <= rate + rounding


def test_the_decay_ends_with_the_run_unless_told_otherwise() -> None:
    options = OptimizerOptions(lr=1.0, min_lr=0.25, lr_decay_style="linear")
    assert lr_at(options, 100, train_iters=100) == 0.25
    assert lr_at(options, 50, train_iters=100) == pytest.approx(0.625)
    assert lr_at(options, 50, train_iters=50) == 0.25


def test_the_first_step_is_not_spent_on_a_rate_of_zero() -> None:
    assert lr_at(OptimizerOptions(lr=1.0, lr_warmup_iters=4), 1, train_iters=10) == 0.25


def test_the_studys_rate_is_flat_for_its_first_ten_thousand_steps() -> None:
    """1 / sqrt(max(step, 10000)), Wang et al. 2022."""
    options = OptimizerOptions(lr=0.01, lr_decay_style="inverse-square-root", lr_hold_iters=10_000)
    for step in (1, 2, 9_999, 10_000, 10_001, 12_345, 40_000, 131_072):
        assert lr_at(options, step, train_iters=131_072) == pytest.approx(max(step, 10_000) ** -0.5, rel=1e-15), step


def test_a_held_rate_may_follow_a_warm_up() -> None:
    options = OptimizerOptions(lr=1.0, lr_decay_style="inverse-square-root", lr_warmup_iters=4, lr_hold_iters=16)
    rates = [lr_at(options, step, train_iters=100) for step in (2, 4, 16, 64)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.5])
