"""Draws: the published words of SplitMix64, and numbers that are uniform."""

from collections import Counter
from itertools import combinations

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


@given(seed=st.integers(0, 2**64 - 1), total=st.integers(0, 200), data=st.data())
def test_subsets_are_ascending_and_below_the_total(seed, total, data):
    count = data.draw(st.integers(0, total))
    numbers = Draws(seed).subset(total, count).tolist()
    assert len(numbers) == count and numbers == sorted(set(numbers))
    assert not numbers or (numbers[0] >= 0 and numbers[-1] < total)


def test_every_subset_is_equally_likely():
    sets = list(combinations(range(6), 3))
    seen = Counter(tuple(Draws(seed).subset(6, 3).tolist()) for seed in range(20_000))
    assert sorted(seen) == sets
    assert all(abs(count - 1000) < 5 * 1000**0.5 for count in seen.values())


@given(seed=st.integers(0, 2**64 - 1), before=st.integers(0, 5), handed=st.integers(0, 5))
def test_words_that_are_handed_over_are_those_that_would_have_come(seed, before, handed):
    draws, whole = Draws(seed), Draws(seed).words(before + handed + 2).tolist()
    draws.words(before)
    assert Draws(draws.hand_over(handed)).words(handed).tolist() == whole[before : before + handed]
    assert draws.words(2).tolist() == whole[-2:]
