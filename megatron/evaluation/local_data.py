"""Data sets of evaluation tasks from folders on this machine.

Of these forms, for each split the first that is there is read:
    TASK/SPLIT.jsonl, .jsonl.gz, .parquet   the examples, in the columns of the original data set
    DATA_SET/CONFIGURATION/SPLIT            a folder written by `datasets.Dataset.save_to_disk`
    TASK/SPLIT_rc_5shot/requests.jsonl.gz   requests of OLMo's in-loop evaluation, whose examples are taken out
TASK is lm-eval's name of the task; SPLIT is train, dev, validation or test, or the task's own name of a split; DATA_SET
is OWNER/NAME or NAME. Folders of the second form may also lie in `hf_datasets` of --data-dir, those of the last in its
`oe_eval_tasks`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.evaluation.task_splits import TaskSplits
from megatron.prompting.data_sets import split_places

USUAL_SPLITS = TaskSplits("train", "validation", "test", None)
OWNED = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)  # OWNER/NAME of the hub, no path of a disk

# Where folders of data sets have other names than the data sets that lm-eval asks for.
RENAMED = {
    "piqa/none": "piqa/plain_text",
    "siqa/none": "social_i_qa/none",
    "commonsense_qa/none": "tau/commonsense_qa/none",
}
RENAMED_DATA_SETS = {"mmlu": "hails/mmlu_no_train"}  # with all their configurations


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
        for place in split_places(folder, split, files=[task], saved=[*name.folders], requests=[task]):
            if place.exists():
                files[split], readers[split] = place.path, place.table
                break
    return LocalData(files, readers) if splits.scored(files) else None
