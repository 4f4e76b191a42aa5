"""Prefix LM: every cut equally likely, nothing lost, two texts that fill each other's gaps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from tests.oracles.objective_cases import build, decoder_room, random_window, two_rows, window_of


class Fixed(Draws):
    """Draws that give what the test wants."""

    def __init__(self, value: int) -> None:
        super().__init__(0)
        self.value = value

    def between(self, first: int, last: int) -> int:
        assert first <= self.value <= last
        return self.value


def test_a_window_is_cut_in_two() -> None:
    (example,) = build("prefix_lm", decoder_room(6, overlap=0))(window_of([5, 6, 7, 8, 9, 1]), Fixed(2))
    assert example.inputs.tolist() == [5, 6] and example.targets.tolist() == [7, 8, 9, 1]
    assert not example.is_complete  # the end of its document, where there is one, stands in the text already


def test_an_example_says_where_its_documents_begin() -> None:
    (example,) = build("prefix_lm", decoder_room(6, overlap=0))(window_of([5, 1, 7, 8, 1, 9], [2, 5]), Fixed(3))
    assert example.document_starts.tolist() == [2, 5]


def test_two_texts_fill_the_rows_of_an_encoder_decoder() -> None:
    window = window_of([10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25])
    first, second = build("prefix_lm", two_rows(6, 6))(window, Fixed(2))
    assert (first.inputs.tolist(), first.targets.tolist()) == ([10, 11], [12, 13, 14, 15])
    assert (second.inputs.tolist(), second.targets.tolist()) == ([20, 21, 22, 23], [24, 25])


@given(inputs=st.integers(2, 40), targets=st.integers(2, 40), seed=st.integers(0, 10**6))
def test_folded_rows_are_full_whatever_their_lengths(inputs: int, targets: int, seed: int) -> None:
    objective = build("prefix_lm", two_rows(inputs, targets))
    window = random_window(objective.window_length, seed)
    examples = objective(window, Draws(seed))
    assert all(len(example.inputs) and len(example.targets) for example in examples)
    whole = np.concatenate([part for example in examples for part in (example.inputs, example.targets)])
    np.testing.assert_array_equal(whole, window.tokens)
    assert len(window.tokens) >= inputs + targets - 1
    assert sum(len(example.inputs) for example in examples) <= inputs
    assert sum(len(example.targets) for example in examples) <= targets


@given(length=st.integers(2, 100), seed=st.integers(0, 10**6))
def test_nothing_is_lost(length: int, seed: int) -> None:
    window = random_window(length, seed)
    (example,) = build("prefix_lm", decoder_room(length))(window, Draws(seed))
    assert len(example.inputs) and len(example.targets)
    np.testing.assert_array_equal(np.concatenate([example.inputs, example.targets]), window.tokens)


def test_every_cut_is_equally_likely() -> None:
    objective, window = build("prefix_lm", decoder_room(11, overlap=0)), random_window(11)
    cuts = Counter(len(objective(window, Draws(seed))[0].inputs) for seed in range(20_000))
    assert sorted(cuts) == list(range(1, 11))
    # Ten cuts of probability 1/10: five standard deviations of a binomial count are 212.
    assert all(abs(count - 2000) < 212 for count in cuts.values())


def test_a_window_shorter_than_two_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="--objective prefix_lm needs a window of two tokens or more"):
        build("prefix_lm", decoder_room(1, overlap=0))


@pytest.mark.parametrize("room", [two_rows(1, 1), two_rows(8, 1), two_rows(1, 512)])
def test_a_row_that_takes_one_of_two_folded_texts_is_refused(room) -> None:
    with pytest.raises(UserError, match="give --seq-length and --decoder-seq-length 2 or more each"):
        build("prefix_lm", room)
