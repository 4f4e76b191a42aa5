"""What an error message proposes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.basics.divisors import nearest_divisor


@given(st.integers(1, 3000), st.integers(-5, 4000))
def test_no_divisor_is_closer(number: int, wish: int) -> None:
    answer = nearest_divisor(number, wish)
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    assert answer in divisors
    assert abs(answer - wish) == min(abs(d - wish) for d in divisors)


@pytest.mark.parametrize("number", [2**61 - 1, 10**12 + 39])
def test_absurd_sizes_are_answered_at_once(number: int) -> None:
    started = time.process_time()
    assert nearest_divisor(number, number // 2) == 1
    assert time.process_time() - started < 0.5
