"""Splits of data sets by their names on the hub, from folders."""

from __future__ import annotations

import gzip
import json
import shutil
import tracemalloc
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from datasets.exceptions import DatasetGenerationError, DefunctDatasetError, NonMatchingSplitsSizesError

from megatron.basics.errors import UserError
from megatron.prompting import json_lines
from megatron.prompting.data_sets import TASKS_OF_REQUESTS, DataMissing, DataSets
from megatron.prompting.renderer import Renderer
from megatron.prompting.template import Template

EXAMPLES = [{"text": "It rained.", "label": 0}, {"text": "It snowed.", "label": 1}]


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.mark.parametrize(
    ("path", "configuration", "place"),
    [
        ("imdb", None, "imdb/train.jsonl"),
        ("imdb", None, "imdb/plain_text/train.jsonl.gz"),
        ("someone/imdb", None, "someone/imdb/plain_text/train.jsonl"),
        ("glue", "mrpc", "glue/mrpc/train.parquet"),
        ("glue", "mrpc", "glue/mrpc/train-00000-of-00001.parquet"),
        ("glue", "mrpc", "hf_datasets/glue/mrpc/train"),
        ("imdb", None, "hf_datasets/imdb/none/train"),
        ("commonsense_qa", None, "hf_datasets/tau/commonsense_qa/none/train"),
    ],
)
def test_a_split_is_found_where_it_may_lie(tmp_path: Path, path: str, configuration: str | None, place: str) -> None:
    target = tmp_path / place
    target.parent.mkdir(parents=True)
    if ".jsonl" in place:
        write_lines(target, EXAMPLES)
    elif place.endswith(".parquet"):
        datasets.Dataset.from_list(EXAMPLES).to_parquet(str(target))
    else:
        datasets.Dataset.from_list(EXAMPLES).save_to_disk(str(target))
    found = DataSets(tmp_path).find(path, configuration, "train")
    assert [*found.rows()] == EXAMPLES == list(found.table()) and found.count() == 2
    before = found.state()
    assert before == DataSets(tmp_path).find(path, configuration, "train").state()
    assert found.first() == EXAMPLES[0]


def test_rte_of_glue_is_that_of_super_glue(tmp_path: Path) -> None:
    rows = [{"sentence1": "It rained.", "sentence2": "It is wet.", "label": 0, "idx": 3}]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "hf_datasets/glue/rte/validation"))
    found = DataSets(tmp_path)
    wanted = [{"premise": "It rained.", "hypothesis": "It is wet.", "label": 0, "idx": 3}]
    assert [*found.find("super_glue", "rte", "validation").rows()] == wanted
    assert [*found.find("glue", "rte", "validation").rows()] == rows


@pytest.mark.parametrize(
    ("path", "configuration", "task", "doc", "example"),
    [
        (
            "commonsense_qa",
            None,
            "csqa",
            {"id": "1", "query": "Question: Why?\nAnswer:", "choices": ["so", "not"], "gold": 1},
            {"id": "1", "question": "Why?", "choices": {"text": ["so", "not"], "label": ["A", "B"]}, "answerKey": "B"},
        ),
        (
            "piqa",
            None,
            "piqa",
            {
                "goal": "Dry",
                "sol1": "sun",
                "sol2": "rain",
                "label": 0,
                "index": 4,
                "query": "Q",
                "choices": [],
                "gold": 0,
            },
            {"goal": "Dry", "sol1": "sun", "sol2": "rain", "label": 0},
        ),
        (
            "hellaswag",
            None,
            "hellaswag",
            {"query": "Rain: It falls. Then", "choices": ["a", "b"], "gold": 0},
            {
                "activity_label": "Rain",
                "ctx_a": "It falls. Then",
                "ctx_b": "",
                "ctx": "It falls. Then",
                "endings": ["a", "b"],
                "label": "0",
            },
        ),
    ],
)
def test_requests_hold_each_example_once(
    tmp_path: Path, path: str, configuration: str | None, task: str, doc: dict[str, Any], example: dict[str, Any]
) -> None:
    lines = [{"doc": doc, "request": {"context": "shots"}, "idx": number} for number in range(4)]
    write_lines(tmp_path / "oe_eval_tasks" / task / "train_rc_5shot/requests.jsonl.gz", lines)
    found = DataSets(tmp_path).find(path, configuration, "train")
    assert [*found.rows()] == [example] and found.count() == 1


def test_a_line_is_read_no_further_than_an_example_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of .gz may be a gigabyte of one line."""
    path = tmp_path / "imdb/train.jsonl.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(b'{"text": "a"}\n' + b" " * 40_000_000))
    monkeypatch.setattr(json_lines, "LONGEST_LINE", 100_000)
    found = DataSets(tmp_path).find("imdb", None, "train")
    tracemalloc.start()
    for step in (found.count, lambda: [*found.rows()]):
        with pytest.raises(
            UserError, match=r"line 2 of .*train.jsonl.gz has more than 100,000 characters, which no exa"
        ):
            step()
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()
    write_lines(path, [{"text": "a" * 50_000}, {"text": "b"}])
    assert found.count() == 2


def test_values_that_cannot_be_read_are_named_by_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet's writers do not look at texts: bytes that are no UTF-8 turn up when they are read."""
    folder = tmp_path / "imdb"
    folder.mkdir()
    texts = pyarrow.array([b"rain"] * 300 + [b"\xff\xfe"] + [b"snow"] * 9)
    texts = pyarrow.StringArray.from_buffers(len(texts), *texts.buffers()[1:])
    broken = pyarrow.table({"label": [1] * len(texts), "text": texts})
    pyarrow.parquet.write_table(broken, folder / "train.parquet")
    rows = DataSets(tmp_path).find("imdb", None, "train").rows()
    assert [next(rows)["text"] for _ in range(256)] == ["rain"] * 256
    sentence = r"imdb/train.parquet: the column text of row 301 cannot be read \(.*; mend the data, or leave them out"
    with pytest.raises(UserError, match=sentence):
        next(rows)
    datasets.Dataset(broken).save_to_disk(str(folder / "test"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **named: datasets.Dataset(broken))
    for shelf, place in ((tmp_path, "--data-dir: .*imdb/test"), (None, "^imdb")):
        rows = DataSets(shelf).find("imdb", None, "test").rows()
        with pytest.raises(UserError, match=rf"{place}: row 301 cannot be read \(.*; mend the data"):
            list(rows)


def test_times_and_identifiers_are_what_templates_may_print(tmp_path: Path) -> None:
    """pyarrow gives pandas' times for nanoseconds, which T0's data sets of articles have."""
    then, long = datetime(2020, 2, 3, 4, 5, 6, 7, UTC), timedelta(days=2, microseconds=3)
    name = UUID(int=5)
    table = pyarrow.table(
        {
            "then": pyarrow.array([then, None], pyarrow.timestamp("ns", "UTC")),
            "naive": pyarrow.array([then.replace(tzinfo=None)] * 2, pyarrow.timestamp("ns")),
            "none": pyarrow.array([-(2**63)] * 2).cast(pyarrow.timestamp("ns")),
            "long": pyarrow.array([long] * 2, pyarrow.duration("ns")),
            "day": pyarrow.array([then.date()] * 2),
            "listed": pyarrow.array([[{"then": then}]] * 2, pyarrow.list_(pyarrow.struct({"then": "timestamp[ns]"}))),
            "name": pyarrow.ExtensionArray.from_storage(
                pyarrow.uuid(), pyarrow.array([name.bytes] * 2, pyarrow.binary(16))
            ),
        }
    )
    (tmp_path / "news").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "news/train.parquet")
    row, other = DataSets(tmp_path).find("news", None, "train").rows()
    naive = then.replace(tzinfo=None)
    wanted = {"then": then, "naive": naive, "none": None, "long": long, "day": then.date(), "name": str(name)}
    assert row == {**wanted, "listed": [{"then": naive}]} and other["then"] is None
    assert {type(row[key]) for key in ("then", "naive", "long", "day")} == {datetime, timedelta, date}
    jinja = "{{ then }} {{ long }} {{ day }} {{ listed[0].then }} {{ name }} ||| x"
    printed = Renderer(Template("news", "when", jinja, None, True, False, (), "when", "")).render(row, 0)
    assert printed is not None and printed.inputs == f"{then} {long} {then.date()} {naive} {name}"
    datasets.Dataset(table.select(["then", "long"])).save_to_disk(str(tmp_path / "news/test"))
    row, _ = DataSets(tmp_path).find("news", None, "test").rows()
    assert [(type(value), value) for value in row.values()] == [(datetime, then), (timedelta, long)]


@pytest.mark.parametrize("is_fetched", [True, False])
def test_the_format_of_a_table_is_not_that_of_its_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_fetched: bool
) -> None:
    rows = [{"text": "It rained.", "label": 0, "words": [1, 2]}, {"text": "It snowed.", "label": 1, "words": [3, 4]}]
    for number, form in enumerate(({"type": "numpy"}, {"type": None, "columns": ["label"]}, {"type": "pandas"})):
        table = datasets.Dataset.from_list(rows).with_format(**form)
        table.save_to_disk(str(tmp_path / f"imdb{number}/train"))
        monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, table=table, **named: table)
        found = DataSets(None if is_fetched else tmp_path).find(f"imdb{number}", None, "train")
        assert [*found.rows()] == rows == [*found.table()] and found.first() == rows[0]
        assert type(found.first()["words"]) is list


def test_a_folder_of_the_working_directory_is_not_the_hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The datasets library would look there first."""
    write_lines(tmp_path / "imdb/train.jsonl", EXAMPLES)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"{tmp_path}/imdb has its name, .*; give --data-dir {tmp_path}, or") as told:
        DataSets(None).find("imdb", None, "train")
    assert not isinstance(told.value, DataMissing)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    write_lines(tmp_path / "imdb/test.jsonl", EXAMPLES)
    with pytest.raises(DataMissing, match=f"imdb has no split train in {tmp_path}; it has test there."):
        DataSets(tmp_path).find("imdb", None, "train")
    with pytest.raises(DataMissing, match=r"has nothing of glue/mrpc: no glue/mrpc/train.jsonl, for example"):
        DataSets(tmp_path).find("glue", "mrpc", "train")


@pytest.mark.parametrize(
    ("path", "configuration", "split"),
    [
        ("imdb", None, "../../text"),
        ("imdb", None, "/x/y"),
        ("imdb", None, ".."),
        ("/imdb", None, "train"),
        ("../imdb", None, "train"),
        ("glue", "../mrpc", "train"),
        ("glue", "", "train"),
    ],
)
def test_nothing_is_looked_for_outside_of_the_folder(
    tmp_path: Path, path: str, configuration: str | None, split: str
) -> None:
    write_lines(tmp_path / "text.jsonl", EXAMPLES)
    write_lines(tmp_path / "imdb/train.jsonl", EXAMPLES)
    (tmp_path / "data/imdb").mkdir(parents=True)
    with pytest.raises(UserError, match="are looked for by name; names have letters, digits") as told:
        DataSets(tmp_path / "data").find(path, configuration, split)
    assert not isinstance(told.value, DataMissing)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"a": ' + 200_000 * "[" + 200_000 * "]" + "}", "line 2 of .* is nested more than 100 deep"),
        ('{"a": ' + 101 * "[" + 101 * "]" + "}", "line 2 of .* is nested more than 100 deep"),
        ('{"a": ' + 5000 * "1" + "}", "line 2 of .* is not JSON"),
        ('{"a": ', "line 2 of .* is not JSON"),
        ("[]", "line 2 of .* is not an object"),
        ('{"b": 1}', "example 2 of .* lacks a"),
    ],
)
def test_lines_that_hold_no_example(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "imdb/train.jsonl"
    write_lines(path, [{"a": "[" * 300, "b": [[["deep enough"]]]}])
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(UserError, match=fault):
        [*DataSets(tmp_path).find("imdb", None, "train").rows()]


@pytest.mark.parametrize("path", ["commonsense_qa", "hellaswag"])
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"gold": 2}, r"is not as its kind is \(gold is 2, and there are 2 choices\)"),
        ({"gold": -1}, r"is not as its kind is \(gold is -1, and there are 2 choices\)"),
        ({"gold": "1"}, r"is not as its kind is \(gold is '1', and there are 2 choices\)"),
        ({"query": None}, "lacks query"),
        ({"choices": None}, "lacks choices"),
    ],
)
def test_requests_of_another_kind(tmp_path: Path, path: str, change: dict[str, Any], fault: str) -> None:
    task = TASKS_OF_REQUESTS[path]
    right = {"id": "1", "query": "Question: Why?\nAnswer:", "choices": ["so", "not"], "gold": 1}
    wrong = {name: value for name, value in {**right, "id": "2", **change}.items() if value is not None}
    write_lines(tmp_path / task / "train_rc_5shot/requests.jsonl.gz", [{"doc": one} for one in (right, right, wrong)])
    rows = DataSets(tmp_path).find(path, None, "train").rows()
    next(rows)
    with pytest.raises(UserError, match=f"line 3 of .*requests.jsonl.gz {fault}; write it anew"):
        next(rows)


def test_parquet_is_read_a_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of long documents are megabytes each."""
    sizes = []
    batches = pyarrow.parquet.ParquetFile.iter_batches

    def counted(file: Any, *arguments: Any, **named: Any) -> Any:
        for batch in batches(file, *arguments, **named):
            sizes.append(len(batch))
            yield batch

    (tmp_path / "imdb").mkdir()
    rows = [{"text": f"It rained {number}."} for number in range(600)]
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "imdb/train.parquet"))
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", counted)
    found = DataSets(tmp_path).find("imdb", None, "train")
    assert found.first() == rows[0] and sizes == [1]
    assert [*found.rows()] == rows and max(sizes[1:]) <= 256


def test_a_folder_that_the_library_did_not_write_so_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "imdb/train"
    datasets.DatasetDict({"train": datasets.Dataset.from_list(EXAMPLES)}).save_to_disk(str(folder))
    with pytest.raises(UserError, match=r"imdb/train holds several splits \(train\); put the folder of each into "):
        DataSets(tmp_path).find("imdb", None, "train").count()
    shutil.rmtree(folder)
    datasets.Dataset.from_list(EXAMPLES).save_to_disk(str(folder))
    (folder / "state.json").write_text("{}")
    with pytest.raises(UserError, match=r"imdb/train is no folder of the datasets library \(KeyError"):
        DataSets(tmp_path).find("imdb", None, "train").count()


@pytest.mark.parametrize("ending", ["", "-0123456789abcdef"])
def test_a_split_of_which_parts_are_missing(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "imdb"
    folder.mkdir()
    table = datasets.Dataset.from_list(EXAMPLES)
    table.select([0]).to_parquet(str(folder / f"train-00000-of-00002{ending}.parquet"))
    found = DataSets(tmp_path).find("imdb", None, "train")
    for step in (found.count, found.state, lambda: [*found.rows()]):
        with pytest.raises(UserError, match=r"imdb lacks train-00001-of-00002\.parquet, a part of its train; fetch it"):
            step()
    table.select([1]).to_parquet(str(folder / f"train-00001-of-00002{ending}.parquet"))
    assert [*found.rows()] == EXAMPLES
    table.to_parquet(str(folder / "train-00000-of-00001.parquet"))
    with pytest.raises(UserError, match="are parts of several copies"):
        found.count()


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "imdb").mkdir()
    (tmp_path / "imdb/train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"imdb/train.parquet is no Parquet file that can be read"):
        DataSets(tmp_path).find("imdb", None, "train").count()


def test_without_a_folder_the_library_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(path: str, configuration: str | None, *, split: str) -> Any:
        asked.append((path, configuration, split))
        if split != "train":
            raise ValueError(f'Unknown split "{split}".')
        return datasets.Dataset.from_list(EXAMPLES)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = DataSets(None).find("glue", "mrpc", "train")
    assert [*found.rows()] == EXAMPLES and found.state() == found.state()
    with pytest.raises(DataMissing, match=r"glue/mrpc with its split test could not be fetched \(Unknown split"):
        DataSets(None).find("glue", "mrpc", "test")
    assert asked == [("glue", "mrpc", "train"), ("glue", "mrpc", "test")]


@pytest.mark.parametrize(
    "kind", [DatasetGenerationError, NonMatchingSplitsSizesError, DefunctDatasetError, ImportError, KeyError]
)
def test_what_cannot_be_fetched_is_missing_whatever_the_library_raises(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def load_dataset(*arguments: Any, **named: Any) -> Any:
        raise kind("the file is torn\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataMissing, match=r"glue/mrpc with its split train could not be fetched \(.*the file is torn"):
        DataSets(None).find("glue", "mrpc", "train")


def test_data_that_the_hub_has_corrected_are_other_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many examples, of the same columns, in the same version."""
    tables = [
        datasets.Dataset.from_list([{"text": text}], info=datasets.DatasetInfo(version="1.0.0"))
        for text in ("It raind.", "It rained.")
    ]
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **named: tables[0])
    before = DataSets(None).find("imdb", None, "train").state()
    assert DataSets(None).find("imdb", None, "train").state() == before
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **named: tables[1])
    assert DataSets(None).find("imdb", None, "train").state() != before
