"""Plans of rows: every piece has one place, no row overflows, and few rows are used."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data.row_plan import RowPlan


def plan_of(counts: list[int], costs: list[list[int]], capacity: list[int]) -> RowPlan:
    return RowPlan(np.array(counts, np.int64), np.array(costs, np.int64), np.array(capacity, np.int64))


@st.composite
def tasks(draw: st.DrawFn) -> tuple[list[int], list[list[int]], list[int]]:
    """Counts, costs that grow with the length in two measures and their sum, and a capacity that takes the longest."""
    longest = draw(st.integers(1, 20))
    counts = [0, *draw(st.lists(st.integers(0, 30), min_size=longest, max_size=longest))]
    steps = [[0, 0], *draw(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=20, max_size=20))]
    both = np.cumsum(np.array(steps[: longest + 1]), axis=0) + np.arange(longest + 1)[:, None]
    costs = np.concatenate([both, both.sum(axis=1, keepdims=True)], axis=1)
    room = costs[-1] + np.array(draw(st.lists(st.integers(0, 40), min_size=3, max_size=3)))
    return counts, costs.tolist(), room.tolist()


@settings(max_examples=150, deadline=None)
@given(task=tasks())
def test_every_piece_has_one_place_and_no_row_overflows(task: tuple[list[int], list[list[int]], list[int]]) -> None:
    counts, costs, capacity = task
    plan = plan_of(*task)
    placed: Counter[tuple[int, int]] = Counter()
    taken = np.zeros(3)
    for row in range(plan.num_rows):
        pieces = list(plan.pieces(row))
        assert pieces, "an empty row"
        cost = sum(np.array(costs[length]) for length, _ in pieces)
        assert (cost <= capacity).all()
        placed.update(pieces)
        taken += cost
    assert placed == Counter((length, number) for length, count in enumerate(counts) for number in range(count))
    if plan.num_rows:
        assert plan.fullness == pytest.approx(taken / (np.array(capacity) * plan.num_rows))


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 100), min_size=1, max_size=80))
def test_as_few_rows_as_best_fit_decreasing_piece_by_piece(lengths: list[int]) -> None:
    rows: list[int] = []  # tokens left in each
    for length in sorted(lengths, reverse=True):
        fitting = [place for place, left in enumerate(rows) if left >= length]
        if fitting:
            rows[min(fitting, key=lambda place: rows[place])] -= length
        else:
            rows.append(100 - length)
    counts = np.bincount(lengths, minlength=101).tolist()
    assert plan_of(counts, [[n] for n in range(101)], [100]).num_rows == len(rows)


def test_millions_of_pieces_are_planned_by_their_lengths() -> None:
    counts = np.random.default_rng(0).integers(0, 10**7, 1025)
    counts[0] = 0
    plan = RowPlan(counts, np.arange(1025)[:, None], np.array([1024]))
    assert len(plan.groups) < 5000 and plan.fullness[0] > 0.99
    assert list(plan.pieces(plan.num_rows - 1))


def test_a_piece_that_fits_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="4 tokens"):
        plan_of([0, 0, 0, 0, 1], [[n] for n in range(5)], [3])
