"""Best fit of examples into rows: nothing lost, nothing over, the twins equal, few rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.basics.native_extension import native_extension
from megatron.data import row_filler
from megatron.data.row_filler import fill_rows, placed_in_python

EXTENSION = native_extension("megatron.data.packing_native", "packing", "plain Python")
T0_KINDS = ((60, 0.4, 3, 0.5), (150, 0.5, 5, 0.8), (250, 0.5, 40, 0.6), (450, 0.6, 70, 0.5), (700, 0.5, 12, 0.7))


def t0_sizes(examples: int) -> np.ndarray:
    """Lengths like those of T0's tasks: questions, paraphrases, summaries of short and long texts, reviews."""
    rng = np.random.default_rng(0)
    kinds = np.array(T0_KINDS)[rng.choice(len(T0_KINDS), examples, p=(0.35, 0.2, 0.15, 0.15, 0.15))]
    inputs = np.exp(rng.normal(np.log(kinds[:, 0]), kinds[:, 1])).astype(np.int32) + 1
    targets = np.exp(rng.normal(np.log(kinds[:, 2]), kinds[:, 3])).astype(np.int32) + 2
    return np.stack([np.minimum(inputs, 1024), np.minimum(targets, 256)], axis=1)


def first_row_that_holds(sizes: np.ndarray, capacities: tuple[int, ...]) -> np.ndarray:
    """Best fit decreasing as its definition says, by looking at every open row."""
    limits = np.array(capacities)
    binding = 0 if len(limits) == 1 else int(np.argmax(sizes.sum(0) * limits[::-1]))
    shares = (sizes * limits[::-1]).max(1) if len(limits) > 1 else sizes[:, 0]
    spaces: list[np.ndarray] = []
    rows = np.empty(len(sizes), np.int64)
    for example in sorted(range(len(sizes)), key=lambda k: -shares[k]):
        size = sizes[example]
        taken = [row for row, space in enumerate(spaces) if (space >= size).all()]
        if taken:
            row = min(taken, key=lambda r: (spaces[r][binding], -spaces[r][1 - binding] if len(limits) > 1 else 0, r))
        else:
            row = len(spaces)
            spaces.append(limits.copy())
        spaces[row] = spaces[row] - size
        rows[example] = row
    return rows


@st.composite
def fillings(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...]]:
    capacities = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=2)))
    sizes = draw(st.lists(st.tuples(*(st.integers(0, capacity) for capacity in capacities)), min_size=1, max_size=60))
    return np.array(sizes, np.int32), capacities


@settings(deadline=None)
@given(filling=fillings())
def test_rows_are_those_of_best_fit_decreasing(filling: tuple[np.ndarray, tuple[int, ...]]) -> None:
    sizes, capacities = filling
    rows = fill_rows(sizes, capacities)
    for number, capacity in enumerate(capacities):
        assert (np.bincount(rows, sizes[:, number]) <= capacity).all()
    assert set(rows.tolist()) == set(range(rows.max() + 1))
    np.testing.assert_array_equal(rows, first_row_that_holds(sizes, capacities))


@pytest.mark.skipif(EXTENSION is None, reason="csrc/packing is not built")
@pytest.mark.parametrize("capacities", [(1280,), (1024, 256), (1024, 100)])
def test_the_extension_equals_its_twin(capacities: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = np.minimum(t0_sizes(3000), capacities)
    sizes = sizes.sum(1, keepdims=True) if len(capacities) == 1 else sizes
    native = fill_rows(np.minimum(sizes, capacities), capacities)
    monkeypatch.setattr(row_filler, "_placed", placed_in_python)
    np.testing.assert_array_equal(native, fill_rows(np.minimum(sizes, capacities), capacities))


def test_rows_of_t0_are_full() -> None:
    sizes = t0_sizes(20_000)
    rows = fill_rows(np.minimum(sizes.sum(1, keepdims=True), 1280), (1280,))
    assert np.minimum(sizes.sum(1), 1280).sum() / (1280 * (rows.max() + 1)) > 0.99
    rows = fill_rows(sizes, (1024, 256))
    assert sizes[:, 0].sum() / (1024 * (rows.max() + 1)) > 0.99


def test_an_example_that_fits_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="takes more than a row has"):
        fill_rows(np.array([[3, 5]], np.int32), (4, 4))
    if EXTENSION is not None:
        with pytest.raises(ValueError, match="takes more than a row has"):
            EXTENSION.fill_rows(np.array([[5, 0]], np.int32), 4, 4)
