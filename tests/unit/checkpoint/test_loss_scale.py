"""A loss scale goes on as it was, within the options of the run that loads it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from megatron.device.device import choose_device


def optimizer_with(window: int = 1000, hysteresis: int = 2, min_scale: float = 1.0) -> Any:
    choose_device("cpu")  # must come before megatron.core is imported
    from megatron.core.optimizer.grad_scaler import DynamicGradScaler

    scaler = DynamicGradScaler(
        initial_scale=2.0**20,
        min_scale=min_scale,
        growth_factor=2.0,
        backoff_factor=0.5,
        growth_interval=window,
        hysteresis=hysteresis,
    )
    return SimpleNamespace(optimizer=SimpleNamespace(param_groups=[{"step": 0}]), grad_scaler=scaler)


def reloaded(steps: list[bool], **options: Any) -> Any:
    """A scaler of other options that takes over after `steps`, each with an overflow or without."""
    choose_device("cpu")
    from megatron.checkpoint.state import load_scalar_optimizer_state, scalar_optimizer_state

    first, second = optimizer_with(), optimizer_with(**options)
    for overflow in steps:
        first.grad_scaler.update(overflow)
    load_scalar_optimizer_state(second, scalar_optimizer_state(first))
    return second.grad_scaler


def test_the_same_options_go_on_as_before() -> None:
    scaler = reloaded([True, True, True, *[False] * 999])
    assert scaler.scale.item() == 2.0**18
    scaler.update(False)
    assert scaler.scale.item() == 2.0**19


def test_a_shorter_window_still_lets_the_scale_grow() -> None:
    scaler = reloaded([False] * 500, window=100)
    scaler.update(False)
    assert scaler.scale.item() == 2.0**21


def test_less_patience_counts_at_once() -> None:
    scaler = reloaded([], hysteresis=1)
    scaler.update(True)
    assert scaler.scale.item() == 2.0**19


@pytest.mark.parametrize(("minimum", "expected"), [(1.0, 2.0**18), (2.0**19, 2.0**19)])
def test_a_higher_minimum(minimum: float, expected: float) -> None:
    assert reloaded([True, True, True], min_scale=minimum).scale.item() == expected
