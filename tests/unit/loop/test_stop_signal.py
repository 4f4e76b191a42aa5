"""The first stop signal is remembered, an echo of it is the same wish, and a second wish ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from megatron.loop import stop_signal
from megatron.loop.stop_signal import SECONDS_OF_ONE_WISH, STOP_SIGNALS, StopSignal, ignore_stop_signals


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stop_signal, "time", clock)
    return clock


@pytest.fixture
def ended_with(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


@pytest.fixture
def installed() -> Iterator[StopSignal]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    stop = StopSignal()
    stop.install()
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_the_first_is_remembered(
    number: signal.Signals, installed: StopSignal, clock: Clock, ended_with: list[int]
) -> None:
    assert installed.received is None
    signal.raise_signal(number)
    assert installed.received is number and ended_with == []


def test_an_echo_is_the_same_wish(installed: StopSignal, clock: Clock, ended_with: list[int]) -> None:
    signal.raise_signal(signal.SIGINT)
    clock.now += SECONDS_OF_ONE_WISH
    signal.raise_signal(signal.SIGTERM)
    assert installed.received is signal.SIGINT and ended_with == []


def test_a_second_wish_ends_at_once(installed: StopSignal, clock: Clock, ended_with: list[int]) -> None:
    signal.raise_signal(signal.SIGUSR1)
    clock.now += SECONDS_OF_ONE_WISH + 0.1
    signal.raise_signal(signal.SIGTERM)
    assert ended_with == [128 + signal.SIGTERM]


def test_a_run_that_is_over_is_deaf(installed: StopSignal, ended_with: list[int]) -> None:
    ignore_stop_signals()
    for number in STOP_SIGNALS:
        signal.raise_signal(number)
    assert installed.received is None and ended_with == []
