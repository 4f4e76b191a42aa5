"""The computed permutation: a bijection for every size and key, and as even as a stored one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data.permutation import LARGEST, Permutation

FIRST_OF_SEED_1234 = [569, 417, 306, 619, 149]


@settings(max_examples=80, deadline=None)
@given(size=st.integers(1, 5000), seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6))
def test_every_element_comes_once(size: int, seed: int, epoch: int) -> None:
    taken = Permutation(size, seed, epoch).take(np.arange(size))
    assert np.array_equal(np.sort(taken), np.arange(size))


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, LARGEST), seed=st.integers(0, 2**63), data=st.data())
def test_one_by_one_equals_many_at_once_at_any_size(size: int, seed: int, data: st.DataObject) -> None:
    indices = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=8, unique=True))
    permutation = Permutation(size, seed)
    one_by_one = [permutation[index] for index in indices]
    assert permutation.take(np.array(indices)).tolist() == one_by_one
    assert len(set(one_by_one)) == len(indices) and all(0 <= element < size for element in one_by_one)


def test_the_order_of_a_run_never_changes_between_versions() -> None:
    """A resumed run must go on with the order that it began with: these numbers are part of the file format."""
    assert [Permutation(1000, 1234, "epoch order", 0)[i] for i in range(5)] == FIRST_OF_SEED_1234


@pytest.mark.parametrize("size", [2, 3, 5, 16, 100])
def test_elements_are_spread_evenly_over_places(size: int) -> None:
    """Chi-squared of (place, element) over keys, and of what follows element 0: each within 6 standard deviations."""
    keys = 3000
    orders = np.array([Permutation(size, key).take(np.arange(size)) for key in range(keys)])
    counts = np.array([np.bincount(orders[:, place], minlength=size) for place in range(size)])
    _assert_even(counts.ravel(), degrees=(size - 1) ** 2)
    if size > 2:
        places = orders.argsort(axis=1)[:, 0]
        followers = orders[np.arange(keys), (places + 1) % size]
        _assert_even(np.bincount(followers, minlength=size)[1:], degrees=size - 2)


def test_neighbours_are_torn_apart() -> None:
    """In a large order, consecutive elements lie as far from each other as random ones do: a third of the size."""
    size = 100_003
    order = Permutation(size, 7).take(np.arange(size))
    assert abs(np.abs(np.diff(order)).mean() / size - 1 / 3) < 0.01
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert np.mean(np.diff(order) == 1) < 1e-3


@pytest.mark.parametrize("index", [-1, 10])
def test_an_index_outside_is_an_error(index: int) -> None:
    permutation = Permutation(10, 0)
    with pytest.raises(IndexError):
        permutation[index]
    with pytest.raises(IndexError):
        permutation.take(np.array([index]))


def _assert_even(counts: np.ndarray, degrees: int) -> None:
    expected = counts.mean()
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < degrees + 6 * np.sqrt(2 * degrees), (chi_squared, degrees)
