"""The likeliest choice, whatever its length; medians over prompts and means over data sets, against figures by hand."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.evaluation.prompt_spread import (
    Measured,
    above_random,
    over_data_sets,
    over_examples,
    over_prompts,
)
from megatron.evaluation.rank_classification import ChoiceQuestion, Ranking, rank


def test_a_longer_choice_does_not_win_by_its_mean():
    ranking = Ranking(log_likelihoods=(-4.0, -4.5), num_tokens=(2, 6), right=(0,))
    assert ranking.chosen == 0 and ranking.is_right
    assert ranking.chosen_per_token == 1 and not ranking.is_right_per_token


def test_equal_choices_go_to_the_first_and_any_right_one_counts():
    ranking = Ranking(log_likelihoods=(-4.0, -3.0, -3.0), num_tokens=(1, 1, 1), right=(1, 2))
    assert ranking.chosen == 1 and ranking.is_right


def test_every_choice_is_asked_for_behind_the_same_inputs():
    questions = [
        ChoiceQuestion(np.array([5, 6]), (np.array([7, 1]), np.array([8, 9, 1])), (1,)),
        ChoiceQuestion(np.array([4]), (np.array([7, 1]), np.array([3, 1])), (0,)),
    ]
    asked = []

    def log_likelihoods(pairs):
        asked.extend(pairs)
        return [-float(number) for number in range(len(pairs))]

    rankings = rank(questions, log_likelihoods)
    assert asked == [((5, 6), (7, 1)), ((5, 6), (8, 9, 1)), ((4,), (7, 1)), ((4,), (3, 1))]
    assert rankings[0] == Ranking((-0.0, -1.0), (2, 3), (1,)) and rankings[1] == Ranking((-2.0, -3.0), (2, 2), (0,))
    assert rank([], log_likelihoods) == [] and len(asked) == 4


def spread_of(values):
    return over_prompts([Measured(value, 0.0) for value in values])


def test_the_score_is_the_mean_of_medians_and_not_of_means():
    x, y = spread_of([40, 50, 90]), spread_of([30, 32])
    assert (x.median, x.lowest, x.highest) == (50, 40, 90) and (y.median, y.prompts) == (31, 2)
    assert over_data_sets([Measured(one.median, one.error) for one in (x, y)]).value == 40.5


def test_the_part_of_the_way_from_guessing():
    assert above_random(Measured(0.55, 0.02), 1 / 4).value == pytest.approx(0.4)
    assert above_random(Measured(0.5, 0.03), 1 / 2) == Measured(0.0, pytest.approx(0.06))
    assert math.isnan(above_random(Measured(1.0, 0.0), 1.0).value)


@given(st.lists(st.booleans(), min_size=2, max_size=50))
def test_the_error_of_an_accuracy_is_lm_evals(answers):
    from lm_eval.api.metrics import mean_stderr

    measured = over_examples([float(answer) for answer in answers])
    assert measured.value == pytest.approx(sum(answers) / len(answers))
    assert measured.error == pytest.approx(mean_stderr([float(answer) for answer in answers]))


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 1)), min_size=1, max_size=15))
def test_prompts_in_any_order_have_one_spread(scores):
    spread = over_prompts([Measured(*score) for score in scores])
    values = [value for value, _ in scores]
    assert spread.median == statistics.median(values)
    assert (spread.lowest, spread.highest) == (min(values), max(values))
    assert min(error for _, error in scores) <= spread.error * (1 + 1e-12) and spread.prompts == len(scores)


def test_errors_of_data_sets_add_as_independent_ones_do():
    assert over_data_sets([Measured(0.5, 0.03), Measured(0.7, 0.04)]) == Measured(0.6, pytest.approx(0.025))
    assert math.isnan(over_data_sets([]).value) and math.isnan(over_examples([1.0]).error)
