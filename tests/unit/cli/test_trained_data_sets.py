"""What the lineage of a checkpoint and the starts of its run tell of the prompts that its weights have learnt."""

import pytest

from megatron.checkpoint.contents import Contents, Progress
from megatron.cli.trained_data_sets import training_prefixes


def stage(objective, tokens=7, **more):
    return {"architecture": "causal_decoder", "objective": objective, "tokens": tokens, "loss_tokens": tokens, **more}


TEXT, PROMPTS = stage("full_lm"), stage("multitask")
IMPORTED = stage("span_corruption", 0, imported="t5")


def contents(*lineage, iteration=10):
    progress = Progress(iteration=iteration)
    return Contents(progress=progress, run={}, tokenizer={}, lineage=[*lineage], optimizer={})


def start(*prefixes, iteration=0, flag="data_path", **more):
    blends = {"data_path": [], "train_data_path": [], "valid_data_path": []}
    parts = [{"prefix": prefix, "weight": 1.0, "bytes": {}} for prefix in prefixes]
    return {"iteration": iteration, "data": {"split": "1", **blends, flag: parts}, **more}


@pytest.mark.parametrize(
    "lineage",
    [
        [TEXT],
        [TEXT, stage("span_corruption")],
        [TEXT, stage("multitask", 0)],  # the weights that a finetuning begins with
        [stage("multitask", 0), TEXT],
    ],
)
def test_text_alone_has_no_prompts(lineage):
    assert training_prefixes(contents(*lineage), [start("corpus")]) == []


def test_the_data_of_the_last_run_are_those_of_all_its_starts_so_far():
    last = contents(TEXT, PROMPTS)
    assert training_prefixes(last, [start("tasks/train/a", "tasks/train/b")]) == ["tasks/train/a", "tasks/train/b"]
    assert training_prefixes(last, [start("only", flag="train_data_path")]) == ["only"]
    resumed = [start("a", "b"), start("b", "c", iteration=4), start("never", iteration=10)]
    assert training_prefixes(last, resumed) == ["a", "b", "c"]
    assert training_prefixes(contents(TEXT, PROMPTS, iteration=4), resumed) == ["a", "b"]
    adapted = start("a", iteration=4, consumed_tokens=0)  # whose iterations go on from those of its source
    assert training_prefixes(last, [adapted]) == ["a"]


@pytest.mark.parametrize(
    "lineage",
    [
        [IMPORTED],
        [stage("multitask", 0, imported="T0pp")],
        [IMPORTED, PROMPTS],
        [IMPORTED, TEXT],
        [PROMPTS, TEXT],
        [PROMPTS, PROMPTS],
        [PROMPTS, stage("multitask", 0)],
        [stage("of_tomorrow"), TEXT],
    ],
)
def test_what_nothing_names_is_not_known(lineage):
    assert training_prefixes(contents(*lineage), [start("mine")]) is None


@pytest.mark.parametrize(
    "starts",
    [
        [],
        [{"iteration": 0}],  # of before data were recorded
        [start("a"), {"iteration": 4}],
        [start()],  # a folder that was imported with the lineage of its export
        [start("a", iteration=4)],
        [start("a", iteration=4, consumed_tokens=7)],  # goes on with a run of another folder
        ["a"],
    ],
)
def test_a_run_that_does_not_name_its_data(starts):
    assert training_prefixes(contents(TEXT, PROMPTS), starts) is None
