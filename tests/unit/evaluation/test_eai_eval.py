"""The study's task list: its counts and baselines as published, and a mean that says over what it is."""

import math

import pytest

from megatron.evaluation.eai_eval import BY_TASK, EAI_TASKS, NUM_AGGREGATED, eai_mean


def results_of(value, error=0.1, left_out=()):
    filled = {}
    for entry in EAI_TASKS:
        name, filter_name = entry.metric.split(",")
        if entry.name not in left_out:
            filled[entry.task] = {entry.metric: value, f"{name}_stderr,{filter_name}": error}
    return filled


def test_the_list_is_the_study_s():
    assert len(EAI_TASKS) == 32 and NUM_AGGREGATED == 31
    assert [entry.name for entry in EAI_TASKS if not entry.aggregated] == ["mc_taco"]
    assert len(BY_TASK) == len(EAI_TASKS)
    mean = sum(entry.random for entry in EAI_TASKS if entry.aggregated) / 31
    assert 100 * mean == pytest.approx(33.14, abs=0.005)  # recomputed from the study's own table


def test_the_mean_over_all_tasks():
    results = results_of(0.25)
    results["mc_taco"]["acc,none"] = 1.0  # reported, and not part of the mean
    mean = eai_mean(results)
    assert mean.is_whole and mean.accuracy == pytest.approx(0.25) and len(mean.scored) == 31
    assert mean.standard_error == pytest.approx(0.1 / math.sqrt(31))


def test_missing_tasks_are_named_and_their_baselines_do_not_count():
    mean = eai_mean(results_of(0.5, left_out=[entry.name for entry in EAI_TASKS if entry.name not in ("cb", "piqa")]))
    assert not mean.is_whole and mean.scored == ("cb", "piqa") and len(mean.missing) == 29
    assert mean.random == 0.5 and "sst" in mean.missing


def test_nothing_scored_has_no_mean():
    mean = eai_mean({"copa": {"acc_norm,none": 0.5}})
    assert math.isnan(mean.accuracy) and mean.scored == ()


def test_a_task_without_a_standard_error_leaves_that_of_the_mean_open():
    assert math.isnan(eai_mean(results_of(0.5, error="N/A")).standard_error)
