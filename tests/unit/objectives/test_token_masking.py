"""BERT's masking: how many, which, and what becomes of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from megatron.objectives import token_masking
from megatron.objectives.token_masking import TokenMasking

MASK, FIRST, VOCABULARY = 4, 10, 1010


def masking(**changes) -> TokenMasking:
    settings = {
        "vocabulary_size": VOCABULARY,
        "mask_token": MASK,
        "left_alone": range(FIRST),
        "random_tokens": range(FIRST, VOCABULARY),
    }
    return TokenMasking(**settings | changes)


@pytest.fixture(params=["native", "numpy"], autouse=True)
def twin(request, monkeypatch):
    """Every test for both; where nothing was built they are the same."""
    if request.param == "numpy":
        monkeypatch.setattr(token_masking, "native_corruption", lambda: None)


def rows(count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(7).integers(FIRST, VOCABULARY, (count, length), np.int32)
    return tokens, np.arange(count, dtype=np.uint64)


@pytest.mark.parametrize(("length", "chosen"), [(1, 1), (3, 1), (9, 1), (10, 2), (20, 3), (30, 4), (512, 77)])
def test_a_share_of_each_row_is_chosen(length, chosen):
    """0.15 of the tokens, halves to even (1.5 is 2, 4.5 is 4), never none."""
    tokens, seeds = rows(20, length)
    _, is_chosen = masking()(tokens, seeds)
    assert is_chosen.sum(axis=1).tolist() == [chosen] * 20


def test_eighty_ten_ten():
    tokens, seeds = rows(200, 512)
    inputs, is_chosen = masking()(tokens, seeds)
    np.testing.assert_array_equal(inputs[~is_chosen], tokens[~is_chosen])
    before, after = tokens[is_chosen], inputs[is_chosen]
    total = len(before)
    masked, same = (after == MASK).sum(), (after == before).sum()
    # Five standard deviations; one in a thousand random tokens is the same again.
    assert abs(masked - 0.8 * total) < 5 * (0.16 * total) ** 0.5
    assert abs(same - 0.1001 * total) < 5 * (0.09 * total) ** 0.5
    others = after[(after != MASK) & (after != before)]
    assert others.min() >= FIRST and others.max() < VOCABULARY
    assert abs(others.mean() - (FIRST + VOCABULARY - 1) / 2) < 5 * 1000 / 12**0.5 / len(others) ** 0.5


def test_every_set_of_positions_is_equally_likely():
    tokens, seeds = rows(6000, 6)
    _, is_chosen = masking(share=1 / 3)(tokens, seeds)
    counts = Counter(tuple(np.flatnonzero(row).tolist()) for row in is_chosen)
    assert len(counts) == 15 and all(abs(count - 400) < 5 * 400**0.5 for count in counts.values())


def test_tokens_that_are_left_alone_are_never_chosen():
    tokens, seeds = rows(50, 64)
    tokens[:, ::2] = np.arange(32) % FIRST
    inputs, is_chosen = masking(share=1.0)(tokens, seeds)
    np.testing.assert_array_equal(is_chosen, tokens >= FIRST)
    np.testing.assert_array_equal(inputs[:, ::2], tokens[:, ::2])
    nothing = np.zeros((3, 8), np.int32)
    inputs, is_chosen = masking()(nothing, seeds[:3])
    assert not is_chosen.any() and not inputs.any()


@pytest.mark.parametrize("outside", [-1, VOCABULARY, 2**31 - 1])
def test_ids_of_another_vocabulary_are_refused(outside):
    tokens, seeds = rows(2, 8)
    tokens[1, 3] = outside
    with pytest.raises(ValueError, match="tokens must be ids"):
        masking()(tokens, seeds)
