"""Blends: shares hold at every prefix, samples are random access, every source is read in its own order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data.blend import Blend, BlendOrder
from megatron.records.window import Window

weights_of_sources = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(weights=weights_of_sources)
def test_every_prefix_has_its_shares_and_every_source_its_order(weights: list[float]) -> None:
    order, counts = BlendOrder(weights), Counter()
    shares = np.array(weights) / sum(weights)
    for sample in range(400):
        source, number = order[sample]
        assert number == counts[source]  # none skipped, none repeated
        counts[source] += 1
        given_so_far = np.array([counts[k] for k in range(len(weights))])
        assert np.abs(given_so_far - shares * (sample + 1)).max() < 1.7
        if sample % 50 == 0:
            assert order.given(sample + 1) == given_so_far.tolist()


def test_fibonacci_weights_the_worst_case_stay_within_the_bound() -> None:
    weights = [1, 1]
    while len(weights) < 12:
        weights.append(weights[-1] + weights[-2])
    order, given_so_far = BlendOrder(weights), np.zeros(len(weights))
    for sample in range(5 * sum(weights)):
        given_so_far[order[sample][0]] += 1
        assert np.abs(given_so_far - np.array(weights) / sum(weights) * (sample + 1)).max() < 1.7
    assert given_so_far.tolist() == [5 * weight for weight in weights]


@pytest.mark.parametrize("weights", [[0.7, 0.3], [70, 30], [7e8, 3e8]])
def test_only_ratios_count(weights: list[float]) -> None:
    order = BlendOrder(weights)
    counts = Counter(order[sample][0] for sample in range(1000))
    assert counts == {0: 700, 1: 300}


@given(weights=weights_of_sources, sample=st.integers(0, 2**60))
def test_far_samples_are_reached_at_once_and_exactly(weights: list[float], sample: int) -> None:
    """Beyond 2^53 a float could not even hold the number of the sample."""
    order = BlendOrder(weights)
    (source, number), (next_source, next_number) = order[sample], order[sample + 1]
    assert next_number == number + 1 if next_source == source else True
    from fractions import Fraction

    exact = [Fraction(weight) for weight in weights]
    assert abs(number - exact[source] / sum(exact) * sample) < 2


class Numbered:
    """A source whose windows say who they are."""

    def __init__(self, name: int, size: int) -> None:
        self.name, self.samples_per_epoch = name, float(size)

    def windows(self, sample: int) -> list[Window]:
        return [Window(np.array([self.name, sample], np.int32), document_starts=np.zeros(1, np.int32), index=sample)]


def test_a_blend_asks_its_sources_in_turn_and_numbers_samples_itself() -> None:
    blend = Blend([Numbered(0, 30), Numbered(1, 5)], [3.0, 1.0])
    windows = [window for sample in range(8) for window in blend.windows(sample)]
    assert [window.index for window in windows] == list(range(8))
    for name, count in ((0, 6), (1, 2)):
        assert [int(w.tokens[1]) for w in windows if w.tokens[0] == name] == list(range(count))
    assert blend.samples_per_epoch == 20.0  # source 1 is read through after 5 of every 20


@pytest.mark.parametrize("weights", [[], [1.0, 0.0], [-1.0]])
def test_weights_must_be_above_zero(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        BlendOrder(weights)
