"""Draws: the published words of SplitMix64, and numbers that are uniform."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megatron.basics.draws import Draws


def test_the_words_are_those_of_splitmix64():
    """The first outputs for seed 1234567, as the algorithm's reference implementation prints them."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert Draws(1234567).words(5).tolist() == published


@given(seed=st.integers(0, 2**64 - 1), counts=st.lists(st.integers(0, 5), max_size=6))
def test_words_come_in_one_order_however_they_are_taken(seed, counts):
    draws = Draws(seed)
    taken = [word for count in counts for word in draws.words(count).tolist()]
    assert taken == Draws(seed).words(sum(counts)).tolist()
    assert draws.below(2**32) == int(Draws(seed).words(sum(counts) + 1)[-1]) >> 32


@given(seed=st.integers(0, 2**64 - 1), first=st.integers(-5, 5), width=st.integers(0, 1000))
def test_numbers_stay_within_their_bounds(seed, first, width):
    draws = Draws(seed)
    assert first <= draws.between(first, first + width) <= first + width
    assert 0 <= draws.unit() < 1


def test_numbers_are_uniform():
    draws = Draws(3)
    counts = np.bincount([draws.below(7) for _ in range(14_000)], minlength=7)
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000 * 6 / 7)
    units = np.array([draws.unit() for _ in range(10_000)])
    assert abs(units.mean() - 0.5) < 5 / np.sqrt(12 * 10_000)
