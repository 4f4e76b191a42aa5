"""The benchmark of T0-Eval compares equal work."""

import pytest

from benchmarks.evaluation_speed import TOY, largest_difference, random_model
from benchmarks.t0_eval import KINDS, accuracies, contestants, log_likelihoods, same_accuracies, tasks_of
from tests.oracles.one_process_model import DEVICE, one_process_grid


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_all_have_the_same_accuracies(family):
    theirs = random_model(family, TOY)
    tasks = tasks_of(len(KINDS), TOY[family]["vocab_size"])
    models = contestants(family, theirs, DEVICE, one_process_grid(), 2)
    values = [log_likelihoods(tasks, model) for model in models.values()]
    assert len(values[0]) == sum(choices for choices, *_ in KINDS)
    assert largest_difference(values) < 1e-3
    found = {name: accuracies(tasks, model) for name, model in models.items()}
    assert len(same_accuracies(found)) == len(KINDS)
    with pytest.raises(RuntimeError, match="would compare different work"):
        same_accuracies({**found, "wrong": ((0.5, 0.25),)})
