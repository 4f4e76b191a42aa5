"""Random numbers as functions of what they are for."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from megatron.basics.seeds import generator_for, seed_for

purposes = st.lists(st.one_of(st.integers(), st.text("abc.0", max_size=4)), max_size=3)


@given(st.integers(0, 2**40), purposes)
def test_a_seed_is_a_pure_function_in_63_bits(seed: int, purpose: list[int | str]) -> None:
    assert seed_for(seed, *purpose) == seed_for(seed, *purpose)
    assert 0 <= seed_for(seed, *purpose) < 2**63


@given(
    st.lists(st.tuples(st.integers(0, 99), st.text("ab1", max_size=2), st.integers(0, 99)), unique=True, max_size=30)
)
def test_other_purposes_have_other_seeds(purposes: list[tuple[int, str, int]]) -> None:
    assert len({seed_for(*purpose) for purpose in purposes}) == len(purposes)


def test_parts_do_not_run_together() -> None:
    assert len({seed_for(1, 23), seed_for(12, 3), seed_for(1, 2, 3), seed_for(123)}) == 4


def test_another_process_draws_the_same() -> None:
    # str hashes differ between processes; seeds must not.
    program = (
        "from megatron.basics.seeds import generator_for; print(generator_for(7, 'weights', 'a.b').integers(2**60))"
    )
    drawn = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    }
    assert drawn == {str(generator_for(7, "weights", "a.b").integers(2**60))}


def test_known_values_stay() -> None:
    # A change here would give every saved run another data order and other weights.
    assert seed_for(1234, "weights", "embedding") == 300194029468816769
    assert generator_for(1234, "sample", 5).integers(10**9) == 665477889
