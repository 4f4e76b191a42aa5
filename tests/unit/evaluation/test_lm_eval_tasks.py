"""Tasks by name, alone and in groups, with data from folders; what cannot be read is told before anything is scored."""

import json
import random
import sys
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch

from megatron.basics.errors import UserError
from megatron.evaluation.lm_eval_tasks import LoadedTasks, TaskShelf

TASK = """\
task: {name}
dataset_path: someone/{name}
{split}_split: {split}
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
{more}
"""
EXAMPLES = [
    {"question": "the sea is", "choices": ["wet", "dry"], "answer": 0},
    {"question": "the sky is", "choices": ["red", "blue", "low", "old"], "answer": 1},
]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def unreachable(**_):
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", unreachable)


def define(folder, name, split="validation", more=""):
    (folder / "tasks").mkdir(exist_ok=True)
    (folder / "tasks" / f"{name}.yaml").write_text(TASK.format(name=name, split=split, more=more))


def write(folder, name, examples=EXAMPLES, split="validation"):
    path = folder / "data" / name / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(example) + "\n" for example in examples))
    return path


def shelf(folder, *names, num_fewshot=None):
    (folder / "data").mkdir(exist_ok=True)
    return TaskShelf(names, [str(folder / "tasks")], folder / "data", num_fewshot)


def evaluated(name, *numbers_of_choices, metrics=()):
    """A task after its evaluation, as far as baselines are concerned."""
    instances = [
        SimpleNamespace(doc_id=number)
        for number, choices in enumerate(numbers_of_choices)
        for _ in range(choices * (2 if "acc_mutual_info" in metrics else 1))
    ]
    configuration = SimpleNamespace(task=name, metric_list=[{"metric": metric} for metric in metrics])
    return SimpleNamespace(OUTPUT_TYPE="multiple_choice", config=configuration, instances=instances)


class Members(list):
    """A group."""

    def __init__(self, name, tasks, **weights):
        super().__init__(tasks)
        self.name = name
        self.aggregate_metric_list = [
            SimpleNamespace(metric=metric, weight_by_size=weight) for metric, weight in weights.items()
        ]

    def get_all_tasks(self):
        return list(self)


def test_guessing_is_right_as_often_as_there_are_choices():
    one, other = evaluated("one", 2, 4), evaluated("other", 5, metrics=("acc", "acc_mutual_info"))
    text = SimpleNamespace(OUTPUT_TYPE="generate_until", config=SimpleNamespace(task="text"))
    both = [one, other]
    questions = Members("over questions", both, acc=True)
    tasks = Members("over tasks", both, acc=False, f1=True)
    neither = [Members("over either", both, acc=True, acc_norm=False), Members("no mean", both)]
    found = LoadedTasks(None, [questions, tasks, *neither, text]).random_accuracies()
    assert found == {
        "one": 0.375,
        "other": 0.2,
        "over questions": pytest.approx((1 / 2 + 1 / 4 + 1 / 5) / 3),
        "over tasks": pytest.approx((0.375 + 0.2) / 2),
    }


def test_members_of_groups_take_local_data(tmp_path):
    for name in ("seas", "skies"):
        define(tmp_path, name, more="tag: nature_tag")
        write(tmp_path, name)
    (tmp_path / "tasks" / "group.yaml").write_text("group: nature\ntask: [{group: inner}, skies]\n")
    (tmp_path / "tasks" / "inner.yaml").write_text("group: inner\ntask: [seas]\n")
    for name in ("nature", "nature_tag"):
        loaded = shelf(tmp_path, name).load([name])
        assert loaded.missing == {} and set(loaded.data) == {"seas", "skies"}
        tasks = [task for spec in loaded.specs for task in getattr(spec, "get_all_tasks", lambda spec=spec: [spec])()]
        assert [len(task.eval_docs) for task in tasks] == [2, 2]


def test_a_group_says_which_of_its_tasks_have_no_data(tmp_path):
    for name in ("seas", "skies"):
        define(tmp_path, name)
    write(tmp_path, "seas")
    (tmp_path / "tasks" / "group.yaml").write_text("group: nature\ntask: [seas, skies]\n")
    found = shelf(tmp_path, "nature")
    loaded = found.load(["nature"])
    assert "neither in" in loaded.missing["nature"] and loaded.specs == []
    assert "holds nothing for 1 of its 2 tasks (skies)" in found.looked_in("nature", "")


def test_tasks_without_data_say_where_they_were_looked_for(tmp_path):
    define(tmp_path, "seas")
    found = shelf(tmp_path, "seas")
    assert found.load(["seas"]).missing == {"seas": f"neither in {tmp_path / 'data'} nor in the cache of data sets"}
    assert "seas/validation.jsonl, seas/none/validation, requests of seas" in found.looked_in("seas", "")
    fetched = TaskShelf(["seas"], [str(tmp_path / "tasks")], None)
    assert fetched.load(["seas"]).missing == {"seas": "no network"}
    assert "could not be fetched (no network); put it into" in fetched.looked_in("seas", "no network")


def test_the_test_split_counts_where_the_task_has_one(tmp_path):
    """Elsewhere it is the split without answers."""
    for name, split in (("open", "test"), ("hidden", "validation")):
        define(tmp_path, name, split)
        write(tmp_path, name)
        write(tmp_path, name, EXAMPLES[:1], split="test")
        loaded = shelf(tmp_path, name).load([name])
        assert [*loaded.data[name]] == [split] and len(loaded.specs[0].eval_docs) == (1 if split == "test" else 2)


@pytest.mark.parametrize(
    ("named", "there", "scored"),
    [
        ({"test": "validation", "validation": "validation"}, ["test", "validation"], "validation"),  # as MedMCQA
        ({"test": "test_r1", "validation": "dev_r1"}, ["test", "validation"], "test"),  # as ANLI
        ({"test": "testmini"}, ["test", "testmini", "validation"], "testmini"),
        ({"validation": "dev"}, ["dev", "test", "validation"], "dev"),
        ({"validation": "val"}, ["test", "validation"], "validation"),
        ({"test": "test", "validation": "validation"}, ["train", "validation"], "validation"),
        ({"validation": "validation"}, ["test"], "test"),
    ],
)
def test_the_split_that_the_task_names_is_scored(tmp_path, named, there, scored):
    define(tmp_path, "seas", "training", "".join(f"{role}_split: {name}\n" for role, name in named.items()))
    for split in there:
        write(tmp_path, "seas", [{**EXAMPLES[0], "question": split}], split)
    (task,) = shelf(tmp_path, "seas").load(["seas"]).specs
    assert [example["question"] for example in task.eval_docs] == [scored]


def test_examples_in_the_prompt_come_from_their_own_split(tmp_path):
    define(tmp_path, "seas", more="num_fewshot: 2\nfewshot_split: train")
    write(tmp_path, "seas")
    write(tmp_path, "seas", [{**EXAMPLES[0], "question": "in training"}], split="train")
    for number, splits in ((None, ["train", "validation"]), (0, ["validation"]), (1, ["train", "validation"])):
        loaded = shelf(tmp_path, "seas", num_fewshot=number).load(["seas"])
        assert [*loaded.data["seas"]] == splits
    assert [example["question"] for example in loaded.specs[0].fewshot_docs()] == ["in training"]
    define(tmp_path, "skies", more="fewshot_split: trial")
    write(tmp_path, "skies")
    with pytest.raises(UserError, match=r"from the split trial, which .* put it there as skies/trial.jsonl"):
        shelf(tmp_path, "skies", num_fewshot=1).load(["skies"])
    write(tmp_path, "skies", EXAMPLES[:1], split="trial")
    assert len(shelf(tmp_path, "skies", num_fewshot=1).load(["skies"]).specs[0].fewshot_docs()) == 1


def test_tasks_that_draw_draw_the_same_everywhere(tmp_path):
    """As GPQA does, which shuffles its choices."""
    for name in ("seas", "skies"):
        define(tmp_path, name, more="process_docs: !function draws.process")
        write(tmp_path, name)
    draws = "lambda doc: {'draws': [random.random(), float(np.random.rand()), float(torch.rand(()))]}"
    (tmp_path / "tasks" / "draws.py").write_text(
        f"import random\nimport numpy as np\nimport torch\n\ndef process(docs):\n    return docs.map({draws})\n"
    )
    found = []
    for names in (["seas"], ["skies", "seas"]):
        random.seed(len(found))
        np.random.seed(len(found))
        torch.manual_seed(len(found))
        task = shelf(tmp_path, *names).load(names).specs[-1]
        found.append([example["draws"] for example in task.task_docs])
    assert found[0] == found[1] and found[0][0] != found[0][1]


def test_tasks_that_would_count_twice_are_named(tmp_path):
    define(tmp_path, "seas")
    (tmp_path / "tasks" / "group.yaml").write_text("group: nature\ntask: [seas]\n")
    with pytest.raises(UserError, match="--tasks nature and seas both have seas"):
        shelf(tmp_path, "nature", "seas").load(["nature", "seas"])


def test_wrong_columns_are_told(tmp_path):
    define(tmp_path, "seas")
    path = write(tmp_path, "seas", [{"text": "the sea is"}])
    with pytest.raises(UserError, match=rf"--tasks seas cannot use {path} \(UndefinedError: 'question' is undefined\)"):
        shelf(tmp_path, "seas").load(["seas"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"choices": None}, "has the choices None, which are no list of texts"),
        ({"answer": 7}, "has the answer 7, which is none of its choices"),
        ({"answer": -1}, "has the answer -1"),
        ({"answer": None}, "has the answer None"),
        ({"question": None}, "has the question None, which is no text"),
    ],
)
def test_examples_that_cannot_be_scored_are_named(tmp_path, changes, sentence):
    define(tmp_path, "seas", more="doc_to_text: question\ndoc_to_choice: choices\ndoc_to_target: answer")
    path = write(tmp_path, "seas", [*EXAMPLES, {**EXAMPLES[0], **changes}])
    with pytest.raises(UserError) as raised:
        shelf(tmp_path, "seas").load(["seas"])
    assert str(raised.value).startswith(f"--tasks seas: example 3 of {path} {sentence}")


def test_what_is_wrong_with_a_task_itself_is_not_missing_data(tmp_path, monkeypatch):
    define(tmp_path, "seas", more="output_type: guessing")
    with pytest.raises(UserError, match=r"--tasks seas cannot be set up \("):
        shelf(tmp_path, "seas").load(["seas"])

    def damaged(**_):
        raise datasets.exceptions.DatasetGenerationError("cut off")

    define(tmp_path, "skies")
    monkeypatch.setattr("datasets.load_dataset", damaged)
    assert TaskShelf(["skies"], [str(tmp_path / "tasks")], None).load(["skies"]).missing == {"skies": "cut off"}


def test_misspelt_names_get_the_nearest(tmp_path, monkeypatch):
    define(tmp_path, "seas")
    monkeypatch.setattr("lm_eval.tasks.__file__", str(tmp_path / "__init__.py"))  # reading them all takes 15 s
    monkeypatch.setattr(sys.modules["lm_eval.tasks.manager"], "__file__", str(tmp_path / "manager.py"))
    (sentence,) = shelf(tmp_path, "sees").unknown(["sees"])
    assert sentence == "--tasks sees is not known; did you mean seas?"
