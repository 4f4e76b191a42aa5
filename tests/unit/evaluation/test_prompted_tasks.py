"""Held-out tasks from files: which examples become questions, what is skipped and counted, what is refused."""

import json
from pathlib import Path

import pytest
import yaml

from megatron.basics.errors import UserError
from megatron.evaluation.prompted_tasks import prompted_tasks, tasks_named, trained_among
from megatron.prompting.data_sets import DataSets

ROOT = Path(__file__).parents[3]
CHOICES = "{{ text }}? ||| {{ answer_choices[label] }}"
EXAMPLES = [{"text": f"text {number}", "label": number % 2, "a": "yes", "b": "no"} for number in range(4)]


def write_data_set(folder, name, templates, examples=EXAMPLES):
    """Templates {name: (jinja, answer_choices, metrics)} and a validation split."""
    entries = {
        key: {
            "id": key,
            "name": key,
            "jinja": jinja,
            "answer_choices": choices,
            "reference": "",
            "metadata": {"original_task": True, "choices_in_prompt": False, "metrics": metrics},
        }
        for key, (jinja, choices, metrics) in templates.items()
    }
    path = folder / "templates" / name / "templates.yaml"
    path.parent.mkdir(parents=True)
    text = yaml.safe_dump({"dataset": name, "templates": entries})
    text = text.replace("metadata:\n", "metadata: !TemplateMetadata\n")
    for key in entries:
        text = text.replace(f"  {key}:\n", f"  {key}: !Template\n")
    path.write_text(text)
    data = folder / "data" / name / "validation.jsonl"
    data.parent.mkdir(parents=True)
    data.write_text("".join(json.dumps(example) + "\n" for example in examples))


def write_tasks(folder, **prompts):
    path = folder / "tasks.yaml"
    tasks = [
        {"name": name, "path": name, "split": "validation", "prompts": count, "random": "1/2"}
        for name, count in prompts.items()
    ]
    path.write_text(yaml.safe_dump({"tasks": tasks}))
    return str(path)


def read(folder, tasks, **settings):
    return prompted_tasks(
        tasks_named([tasks]),
        folder / "templates",
        DataSets(folder / "data"),
        **{"required": (), **settings},
    )


def test_examples_become_questions_or_are_counted(tmp_path):
    examples = [*EXAMPLES, {**EXAMPLES[0], "b": "yes"}, {**EXAMPLES[0], "text": ""}]
    write_data_set(
        tmp_path,
        "mine",
        {
            "ask": (CHOICES, "{{ a }} ||| {{ b }}", ["Accuracy"]),
            "some": ("{% if text %}{{ text }}{% endif %} ||| {{ label }}", None, ["Squad"]),
            "other": ("{{ text }} ||| {{ label }}", None, ["BLEU"]),
        },
        examples,
    )
    ((task,), missing) = read(tmp_path, write_tasks(tmp_path, mine=3))
    ask, some = task.prompts
    assert missing == {} and task.unmeasured == ("other",) and task.source.endswith("mine/validation.jsonl")
    assert [index for index, _ in ask.questions] == [0, 1, 2, 3, 5] and ask.metrics == (
        "accuracy",
        "accuracy_per_token",
    )
    assert (ask.skipped.count, ask.left_out) == (1, 0)
    assert ask.skipped.first == "example 4 has choices that are not distinct: 'yes', 'yes'"
    assert ask.questions[1][1].choices == ("yes", "no") and ask.questions[1][1].targets == ("no",)
    assert [index for index, _ in some.questions] == [0, 1, 2, 3, 4] and some.left_out == 1
    assert some.metrics == ("squad_exact_match", "f1")
    ((task,), _) = read(tmp_path, write_tasks(tmp_path, mine=3), limit=2)
    assert [len(prompt.questions) for prompt in task.prompts] == [2, 2]


def test_a_template_that_cannot_be_scored_is_refused(tmp_path):
    same = [{**example, "b": "yes"} for example in EXAMPLES[:3]] + EXAMPLES[:2]
    write_data_set(tmp_path, "mine", {"ask": (CHOICES, "{{ a }} ||| {{ b }}", ["Accuracy"])}, same)
    with pytest.raises(
        UserError, match="template 'ask' of mine: 3 of 5 examples cannot be scored, because example 0 has"
    ):
        read(tmp_path, write_tasks(tmp_path, mine=1))


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (
            ("{{ nothing }} ||| {{ label }}", None, ["Squad"]),
            "template 'ask' of mine names the column nothing, example 0",
        ),
        (("{{ text }} ||| {{ label }}", None, ["BLEU"]), "mine has no question in .* neither choices nor a metric"),
        (("{% if false %}a{% endif %} ||| b", None, ["Squad"]), "mine has no question .* or leave out every example"),
        (("{{ text }} ||| maybe", "yes ||| no", ["Accuracy"]), "the target 'maybe', which is not among the choices"),
    ],
)
def test_faults_of_templates_are_told(tmp_path, template, sentence):
    write_data_set(tmp_path, "mine", {"ask": template})
    with pytest.raises(UserError, match=sentence):
        read(tmp_path, write_tasks(tmp_path, mine=1))


def test_tasks_without_data_or_templates_are_missing(tmp_path):
    write_data_set(tmp_path, "mine", {"ask": (CHOICES, "{{ a }} ||| {{ b }}", ["Accuracy"])})
    write_data_set(tmp_path, "other", {"ask": (CHOICES, "{{ a }} ||| {{ b }}", ["Accuracy"])})
    (tmp_path / "data" / "other" / "validation.jsonl").rename(tmp_path / "data" / "other" / "test.jsonl")
    tasks = write_tasks(tmp_path, mine=1, other=1, unknown=1)
    ((task,), missing) = read(tmp_path, tasks)
    assert task.task.name == "mine" and missing.keys() == {"other", "unknown"}
    assert "other has no split validation" in missing["other"]
    assert missing["unknown"].endswith("has no templates of unknown.")
    with pytest.raises(UserError, match=r"--t0-tasks .*tasks.yaml: other cannot be scored: other has no split valid"):
        read(tmp_path, tasks, required={"other"})
    with pytest.raises(UserError, match="--t0-eval has no data of any of its tasks; of other"):
        read(tmp_path, write_tasks(tmp_path, other=1, unknown=1))


def test_text_that_is_not_unicode_is_skipped(tmp_path):
    examples = [*EXAMPLES, {**EXAMPLES[0], "text": "half \ud800"}, {**EXAMPLES[0], "b": "\udc00"}]
    write_data_set(
        tmp_path,
        "mine",
        {
            "ask": (CHOICES, "{{ a }} ||| {{ b }}", ["Accuracy"]),
            "some": ("{{ text }} ||| {{ label }}", None, ["Squad"]),
        },
        examples,
    )
    ((task,), _) = read(tmp_path, write_tasks(tmp_path, mine=2))
    assert [prompt.skipped.count for prompt in task.prompts] == [2, 1]
    assert task.prompts[1].skipped.first == "example 4 has text that is not Unicode"
    assert [len(prompt.questions) for prompt in task.prompts] == [4, 5]


def test_trained_tasks_are_found_by_the_names_of_files():
    tasks = tasks_named(["rte", "hellaswag", "copa", "cb", "winogrande"])
    prefixes = ["/somewhere/train/hellaswag", "tasks/train/super_glue/copa", "tasks/train/glue/rte", "train/super_gl"]
    assert trained_among(tasks, prefixes) == ["rte", "hellaswag", "copa"]
    assert trained_among(tasks, ["train/super_glue"]) == ["rte", "copa", "cb"]
    assert trained_among(tasks, ["train/winogrande/winogrande_l", "hellaswag"]) == ["hellaswag", "winogrande"]
    assert trained_among(tasks, []) == []


def test_tasks_by_name(tmp_path):
    assert len(tasks_named([])) == 11
    assert [task.name for task in tasks_named(["rte", "copa"])] == ["rte", "copa"]
    own = write_tasks(tmp_path, mine=1, copa=1)
    assert [task.name for task in tasks_named([own, "rte"])] == ["mine", "copa", "rte"]
    assert len(tasks_named([str(ROOT / "examples" / "multitask_offline" / "trained_tasks.yaml")])) == 7
    with pytest.raises(UserError, match="--t0-tasks coba is not known; did you mean copa"):
        tasks_named(["coba"])
    with pytest.raises(UserError, match="--t0-tasks has copa twice"):
        tasks_named(["copa", own])
    renamed = tmp_path / "renamed.yaml"
    entry = "{name: mine, path: super_glue, configuration: rte, split: validation, prompts: 10, random: 1/2}"
    renamed.write_text(f"tasks: [{entry}]")
    twice = "--t0-tasks has validation of super_glue/rte as rte and as mine; leave one out"
    with pytest.raises(UserError, match=twice):
        tasks_named(["rte", str(renamed)])
    renamed.write_text(f"tasks: [{entry.replace('validation', 'train')}]")
    assert [task.name for task in tasks_named(["rte", str(renamed)])] == ["rte", "mine"]
