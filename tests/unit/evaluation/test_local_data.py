"""Data of tasks from folders, in every form that is read."""

import gzip
import json

import datasets
import pytest

from megatron.basics.errors import UserError
from megatron.evaluation.local_data import DataSetName, find_local_data
from megatron.prompting.original_columns import ORIGINAL_COLUMNS

COPA = DataSetName("aps/super_glue", "copa")
EXAMPLES = [{"premise": "It rained.", "label": 0}, {"premise": "It snowed.", "label": 1}]


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def save(path, examples):
    datasets.Dataset.from_list(examples).save_to_disk(str(path))


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_lines_in_the_original_columns(tmp_path, ending):
    write_lines(tmp_path / "copa" / f"validation{ending}", EXAMPLES)
    write_lines(tmp_path / "copa" / f"train{ending}", EXAMPLES[:1])
    found = find_local_data(tmp_path, "copa", COPA)
    assert {split: list(rows) for split, rows in found.data_set().items()} == {
        "train": EXAMPLES[:1],
        "validation": EXAMPLES,
    }
    assert [*found.only("validation").data_set()] == ["validation"]


@pytest.mark.parametrize(
    ("task", "name", "folder"),
    [
        ("copa", COPA, "super_glue/copa"),
        ("copa", COPA, "hf_datasets/super_glue/copa"),
        ("copa", COPA, "aps/super_glue/copa"),
        ("sciq", DataSetName("allenai/sciq", None), "hf_datasets/sciq/none"),
        ("piqa", DataSetName("baber/piqa", None), "hf_datasets/piqa/plain_text"),
        ("mmlu_anatomy", DataSetName("cais/mmlu", "anatomy"), "hf_datasets/hails/mmlu_no_train/anatomy"),
    ],
)
def test_folders_of_the_datasets_library(tmp_path, task, name, folder):
    save(tmp_path / folder / "validation", EXAMPLES)
    assert list(find_local_data(tmp_path, task, name).data_set()["validation"]) == EXAMPLES


def test_a_data_set_below_its_owner_comes_first(tmp_path):
    save(tmp_path / "hf_datasets/aps/super_glue/copa/validation", EXAMPLES)
    save(tmp_path / "hf_datasets/super_glue/copa/validation", EXAMPLES[:1])
    save(tmp_path / "hf_datasets/other/super_glue/copa/validation", EXAMPLES[:1])
    assert list(find_local_data(tmp_path, "copa", COPA).data_set()["validation"]) == EXAMPLES
    assert [*DataSetName("../super_glue", "copa").folders] == ["super_glue/copa"]


def test_requests_give_each_example_once(tmp_path):
    document = {"id": "q1", "query": "Question: Why?\nAnswer:", "choices": ["so", "not"], "gold": 1}
    other = {**document, "id": "q2", "gold": 0}
    lines = [{"doc": doc, "request": {"context": "shots"}, "idx": i} for doc in (document, other) for i in range(4)]
    write_lines(tmp_path / "oe_eval_tasks" / "arc_easy" / "test_rc_5shot" / "requests.jsonl.gz", lines)
    rows = find_local_data(tmp_path, "arc_easy", DataSetName("allenai/ai2_arc", "ARC-Easy")).data_set()["test"]
    choices = {"text": ["so", "not"], "label": ["A", "B"]}
    assert list(rows) == [
        {"id": "q1", "question": "Why?", "choices": choices, "answerKey": "B"},
        {"id": "q2", "question": "Why?", "choices": choices, "answerKey": "A"},
    ]


def test_boolq_and_hellaswag_read_as_lm_eval_writes_them():
    """lm-eval's own templates make the very query again."""
    query = "Rain -- Rain is wet.\nQuestion: is rain wet?\nAnswer:"
    columns = ORIGINAL_COLUMNS["boolq"]({"query": query, "choices": ["yes", "no"], "gold": 0})
    assert "{passage}\nQuestion: {question}?\nAnswer:".format(**columns) == query and columns["label"] == 1
    query = "Removing ice: Then, the man: writes. Then"
    columns = ORIGINAL_COLUMNS["hellaswag"]({"query": query, "choices": ["a", "b"], "gold": 1})
    joined = f"{columns['activity_label']}: {columns['ctx_a']} {columns['ctx_b'].capitalize()}"
    assert joined.strip() == query and columns["endings"] == ["a", "b"] and columns["label"] == "1"


def test_training_examples_alone_are_nothing_to_evaluate_on(tmp_path):
    write_lines(tmp_path / "copa" / "train.jsonl", EXAMPLES)
    assert find_local_data(tmp_path, "copa", COPA) is None


@pytest.mark.parametrize("line", ["{broken", "[1, 2]"])
def test_broken_lines_are_named(tmp_path, line):
    path = tmp_path / "copa" / "validation.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(EXAMPLES[0]) + "\n" + line + "\n")
    with pytest.raises(UserError, match=r"line 2 of .*validation.jsonl is not"):
        find_local_data(tmp_path, "copa", COPA).data_set()


@pytest.mark.parametrize(
    ("examples", "sentence"),
    [
        ([], "validation.jsonl is empty"),
        ([*EXAMPLES, {"premise": "It froze."}], "example 3 of .*validation.jsonl lacks label, which the first one has"),
        ([EXAMPLES[0], {"premise": "It froze.", "label": "x"}], "a column whose values are not of one kind"),
    ],
)
def test_examples_that_do_not_make_a_table_are_told(tmp_path, examples, sentence):
    write_lines(tmp_path / "copa" / "validation.jsonl", examples)
    with pytest.raises(UserError, match=sentence):
        find_local_data(tmp_path, "copa", COPA).data_set()


def test_a_file_that_was_cut_off_is_named(tmp_path):
    path = tmp_path / "copa" / "validation.jsonl.gz"
    write_lines(path, EXAMPLES * 50)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UserError, match=r"validation.jsonl.gz cannot be read behind line \d+ .*write it anew"):
        find_local_data(tmp_path, "copa", COPA).data_set()


def test_a_broken_folder_is_named(tmp_path):
    (tmp_path / "super_glue" / "copa" / "validation").mkdir(parents=True)
    with pytest.raises(UserError, match="is no folder of the datasets library"):
        find_local_data(tmp_path, "copa", COPA).data_set()
