"""Data sets of evaluation tasks from folders on this machine.

Three forms are read, for each split the first that is there:
    TASK/SPLIT.jsonl or .jsonl.gz       one example a line, in the columns of the original data set
    DATA_SET/CONFIGURATION/SPLIT        a folder written by `datasets.Dataset.save_to_disk`
    TASK/SPLIT_rc_5shot/requests.jsonl.gz   requests of OLMo's in-loop evaluation, whose examples are taken out
TASK is lm-eval's name of the task; SPLIT is train, dev, validation or test, or the task's own name of a split; DATA_SET
is OWNER/NAME or NAME. Folders of the second form may also lie in `hf_datasets` of --data-dir, those of the last in its
`oe_eval_tasks`.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.basics.errors import UserError
from megatron.evaluation.original_columns import ORIGINAL_COLUMNS
from megatron.evaluation.task_splits import TaskSplits

USUAL_SPLITS = TaskSplits("train", "validation", "test", None)
OWNED = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)  # OWNER/NAME of the hub, no path of a disk
Example = dict[str, Any]

# Where folders of data sets have other names than the data sets that lm-eval asks for.
RENAMED = {
    "piqa/none": "piqa/plain_text",
    "siqa/none": "social_i_qa/none",
    "commonsense_qa/none": "tau/commonsense_qa/none",
}
RENAMED_DATA_SETS = {"mmlu": "hails/mmlu_no_train"}  # with all their configurations
# Names of a split in the folders of requests; those that are not parted hold what the task is evaluated on.
REQUEST_FOLDERS = {
    "train": ("train_rc_5shot",),
    "dev": (),
    "validation": ("val_rc_5shot", "rc_0shot"),
    "test": ("test_rc_5shot",),
}


@dataclass(frozen=True)
class DataSetName:
    """What a task of lm-eval asks for: `dataset_path` and `dataset_name` of its configuration."""

    path: str
    configuration: str | None

    @property
    def folder(self) -> str:
        """`super_glue/copa` of aps/super_glue and copa; `none` stands for no configuration."""
        return f"{self._base}/{self.configuration or 'none'}"

    @property
    def folders(self) -> Iterator[str]:
        """`folder` below its owner, which tells it from others of its name, and alone; then what it is elsewhere."""
        if OWNED.fullmatch(self.path):
            yield f"{self.path}/{self.configuration or 'none'}"
        yield self.folder
        if self.folder in RENAMED:
            yield RENAMED[self.folder]
        if self._base in RENAMED_DATA_SETS:
            yield f"{RENAMED_DATA_SETS[self._base]}/{self.configuration or 'none'}"

    def __str__(self) -> str:
        return " ".join(filter(None, (self.path, self.configuration)))

    @property
    def _base(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class LocalData:
    """The splits of a task that are there: for each, the file or folder, and how to read it."""

    files: Mapping[str, Path]
    readers: Mapping[str, Callable[[], Any]]

    def only(self, split: str) -> LocalData:
        """This split alone."""
        return LocalData({split: self.files[split]}, {split: self.readers[split]})

    def data_set(self) -> Any:
        """A `datasets.DatasetDict` with these splits."""
        import datasets  # a second to import

        datasets.disable_progress_bars()
        return datasets.DatasetDict({split: read() for split, read in self.readers.items()})


def find_local_data(folder: Path, task: str, name: DataSetName, splits: TaskSplits = USUAL_SPLITS) -> LocalData | None:
    """What `folder` has of a task, or None where it has nothing to evaluate on; nothing is read."""
    files: dict[str, Path] = {}
    readers: dict[str, Callable[[], Any]] = {}
    for split in splits.names:
        for path, read in _candidates(folder, task, name, split):
            if path.exists():
                files[split], readers[split] = path, read
                break
    return LocalData(files, readers) if splits.scored(files) else None


def _candidates(folder: Path, task: str, name: DataSetName, split: str) -> Iterator[tuple[Path, Callable[[], Any]]]:
    """The places of a split in the order of preference, each with what reads it."""
    for ending in (".jsonl", ".jsonl.gz"):
        path = folder / task / f"{split}{ending}"
        yield path, _JsonLines(path)
    for data_set in name.folders:
        for base in (folder, folder / "hf_datasets"):
            path = base / data_set / split
            yield path, _SavedFolder(path)
    for base in (folder, folder / "oe_eval_tasks"):
        for requests in REQUEST_FOLDERS.get(split, ()):
            path = base / task / requests / "requests.jsonl.gz"
            yield path, _Requests(path, task)


@dataclass(frozen=True)
class _JsonLines:
    """Reads a file of examples."""

    path: Path

    def __call__(self) -> Any:
        examples = [*_json_lines(self.path)]
        for number, example in enumerate(examples, start=1):
            lacking = examples[0].keys() - example.keys()
            if lacking:
                raise UserError(
                    f"--data-dir: example {number} of {self.path} lacks {', '.join(sorted(lacking))}, which the first "
                    "one has; give all examples the same columns."
                )
        return _from_examples(examples, self.path)


@dataclass(frozen=True)
class _SavedFolder:
    """Reads a folder that the datasets library has written."""

    path: Path

    def __call__(self) -> Any:
        import datasets

        try:
            return datasets.load_from_disk(str(self.path))
        except (OSError, ValueError) as error:
            raise UserError(f"--data-dir: {self.path} is no folder of the datasets library ({error}).") from error


@dataclass(frozen=True)
class _Requests:
    """Reads the examples of requests: one request for each choice, and some twice."""

    path: Path
    task: str

    def __call__(self) -> Any:
        original = ORIGINAL_COLUMNS.get(self.task, dict)
        documents = {json.dumps(line["doc"], sort_keys=True): line["doc"] for line in _json_lines(self.path)}
        return _from_examples([original(document) for document in documents.values()], self.path)


def _from_examples(examples: list[Example], path: Path) -> Any:
    import datasets

    if not examples:
        raise UserError(f"--data-dir: {path} is empty; write one example into each line, or remove it.")
    try:
        return datasets.Dataset.from_list(examples)
    except (ValueError, TypeError) as error:  # pyarrow's, for a column with numbers here and texts there
        raise UserError(f"--data-dir: {path} has a column whose values are not of one kind ({error}).") from error


def _json_lines(path: Path) -> Iterator[Example]:
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                example = json.loads(line)
                if not isinstance(example, dict):
                    raise UserError(f"--data-dir: line {number} of {path} is not an object of columns; mend the file.")
                yield example
    except json.JSONDecodeError as error:
        raise UserError(f"--data-dir: line {number} of {path} is not JSON ({error}); mend the file.") from error
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"--data-dir: {path} cannot be read behind line {number} ({error}); write it anew.") from error
