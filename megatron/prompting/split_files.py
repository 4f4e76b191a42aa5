"""Reads one split of a data set from this machine: lines of JSON, Parquet, folders of `datasets`, requests of OLMo."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from megatron.basics.errors import UserError
from megatron.prompting.json_lines import json_lines, lines_of
from megatron.prompting.plain_rows import in_short, rows_of_batch, rows_of_table
from megatron.prompting.template import Example

_PART = re.compile(r"-([0-9]+)-of-([0-9]+)(?:-[0-9a-f]+)?\.parquet$")  # older ones have a hash behind the numbers
ROWS_AT_ONCE = 256  # of Parquet, as Python's values: long documents are megabytes each


class SplitFile(ABC):
    """The examples of a split, in an order that is always the same. Nothing is read before it is asked for."""

    path: Path

    @abstractmethod
    def rows(self) -> Iterator[Example]:
        """The examples with their columns as plain values. Raises UserError where the file is not what it seems."""

    @abstractmethod
    def count(self) -> int:
        """How many examples there are."""

    def first(self) -> Example | None:
        """The first example, of as little reading as can be; None where there is none."""
        return next(iter(self.rows()), None)

    def table(self) -> Any:
        """All of them as a `datasets.Dataset`."""
        return table_of([*self.rows()], self.path)

    def files(self) -> list[Path]:
        """What it is read from, and what changes when its examples do."""
        return [self.path]

    def exists(self) -> bool:
        """Whether there is something to read."""
        return self.path.exists()

    def state(self) -> list[list[str | int]]:
        """Name, size and time of each file: equal as long as nobody has written them."""
        facts = [(path.name, path.stat()) for path in self.files()]
        return [[name, found.st_size, found.st_mtime_ns] for name, found in facts]


@dataclass(frozen=True)
class JsonLines(SplitFile):
    """A file with an example in each line."""

    path: Path

    def rows(self) -> Iterator[Example]:
        """Line by line; all examples must have the columns of the first."""
        first: Example | None = None
        for number, example in enumerate(json_lines(self.path), start=1):
            first = example if first is None else first
            lacking = first.keys() - example.keys()
            if lacking:
                raise UserError(
                    f"--data-dir: example {number} of {self.path} lacks {', '.join(sorted(lacking))}, which the first "
                    "one has; give all examples the same columns."
                )
            yield example

    def count(self) -> int:
        """The number of lines."""
        return sum(1 for _ in lines_of(self.path))


@dataclass(frozen=True)
class ParquetFiles(SplitFile):
    """FOLDER/SPLIT.parquet, or the parts FOLDER/SPLIT-00000-of-00002.parquet, ... as the hub has them."""

    folder: Path
    split: str

    @property
    def path(self) -> Path:  # type: ignore[override]
        """The file, or what all parts are called."""
        whole = self.folder / f"{self.split}.parquet"
        return whole if whole.exists() else self.folder / f"{self.split}-*.parquet"

    def files(self) -> list[Path]:
        """In the order of their numbers. Raises UserError where one of them is missing or there twice."""
        if self.path.exists():
            return [self.path]
        files = self._parts()
        numbers = [match.groups() for match in (_PART.search(file.name) for file in files) if match]
        totals = sorted({total for _, total in numbers})
        if len(totals) > 1 or len(set(numbers)) < len(numbers):
            raise UserError(f"--data-dir: {self.path} are parts of several copies of one split; keep those of one.")
        if totals:
            there = {int(number) for number, _ in numbers}
            missing = next((number for number in range(int(totals[0])) if number not in there), None)
            if missing is not None:
                name = f"{self.split}-{missing:05}-of-{totals[0]}.parquet"
                raise UserError(f"--data-dir: {self.folder} lacks {name}, a part of its {self.split}; fetch it, too.")
        return files

    def exists(self) -> bool:
        """Whether there is a file."""
        return self.path.exists() or bool(self._parts())

    def rows(self) -> Iterator[Example]:
        """Some at a time."""
        yield from self._rows(ROWS_AT_ONCE)

    def first(self) -> Example | None:
        """Of one row that is read."""
        return next(self._rows(1), None)

    def _rows(self, at_once: int) -> Iterator[Example]:
        for path, file in self._open():
            batches = file.iter_batches(batch_size=at_once)
            before = 0
            while (batch := _read(lambda: next(batches, None), path)) is not None:  # noqa: B023 - called at once
                yield from rows_of_batch(batch, before, f"--data-dir: {path}")
                before += batch.num_rows

    def count(self) -> int:
        """As the ends of the files say."""
        return sum(file.metadata.num_rows for _, file in self._open())

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.split}-*.parquet"))

    def _open(self) -> Iterator[tuple[Path, Any]]:
        import pyarrow.parquet

        for path in self.files():
            yield path, _read(lambda: pyarrow.parquet.ParquetFile(path), path)  # noqa: B023 - called at once


@dataclass(frozen=True)
class SavedFolder(SplitFile):
    """A folder that `datasets.Dataset.save_to_disk` has written."""

    path: Path

    def rows(self) -> Iterator[Example]:
        """As the library gives them without a format."""
        yield from rows_of_table(self._table, f"--data-dir: {self.path}")

    def count(self) -> int:
        """As the library says."""
        return len(self._table)

    def table(self) -> Any:
        """What the library reads."""
        return self._table

    def files(self) -> list[Path]:
        """All files of the folder."""
        return sorted(path for path in self.path.iterdir() if path.is_file())

    @cached_property
    def _table(self) -> Any:
        import datasets

        try:
            found = datasets.load_from_disk(str(self.path))
        except Exception as error:  # what the library says of a folder that is not its own has no kind in common
            raise UserError(
                f"--data-dir: {self.path} is no folder of the datasets library ({in_short(error)}); write it anew."
            ) from error
        if isinstance(found, datasets.DatasetDict):
            raise UserError(
                f"--data-dir: {self.path} holds several splits ({', '.join(map(str, found))}); put the folder of each "
                f"into {self.path.parent}."
            )
        return found.with_format(None)  # it is saved with its format, which hides columns and makes other values


@dataclass(frozen=True)
class Requests(SplitFile):
    """The examples of requests of OLMo's in-loop evaluation: one request for each choice, and some twice.

    columns: makes an example in the columns of its data set of what stands in its requests; None where that is one.
    """

    path: Path
    columns: Callable[[Example], Example] | None = None

    def rows(self) -> Iterator[Example]:
        """Each example once. Raises UserError for one that is not as its task's are."""
        for number, document in self._documents:
            yield dict(document) if self.columns is None else _converted(self.columns, document, f"line {number}", self)

    def count(self) -> int:
        """Without those that come again."""
        return len(self._documents)

    @cached_property
    def _documents(self) -> list[tuple[int, Example]]:
        """Each with the number of its first line."""
        found: dict[str, tuple[int, Example]] = {}
        for number, line in enumerate(json_lines(self.path), start=1):
            if not isinstance(line.get("doc"), dict):
                raise UserError(
                    f"--data-dir: line {number} of {self.path} is not a request with its doc; write it anew."
                )
            found.setdefault(json.dumps(line["doc"], sort_keys=True), (number, line["doc"]))
        return list(found.values())


@dataclass(frozen=True)
class Renamed(SplitFile):
    """The examples of another file in the columns that they are asked for by."""

    source: SplitFile
    columns: Callable[[Example], Example]

    @property
    def path(self) -> Path:  # type: ignore[override]
        """The other file's."""
        return self.source.path

    def rows(self) -> Iterator[Example]:
        """One by one. Raises UserError for an example without the columns that the others are made of."""
        for number, example in enumerate(self.source.rows(), start=1):
            yield _converted(self.columns, example, f"example {number}", self)

    def count(self) -> int:
        """As many as there."""
        return self.source.count()

    def files(self) -> list[Path]:
        """The other's."""
        return self.source.files()


def _converted(columns: Callable[[Example], Example], example: Example, place: str, file: SplitFile) -> Example:
    try:
        return columns(example)
    except KeyError as error:
        fault = f"lacks {error.args[0]}"
    except (IndexError, TypeError, ValueError, AttributeError) as error:
        fault = f"is not as its kind is ({error})"
    raise UserError(f"--data-dir: {place} of {file.path} {fault}; write it anew.")


def _read(step: Callable[[], Any], path: Path) -> Any:
    """What a step of pyarrow gives; its errors are ValueError, OSError and, for what it does not know, their like."""
    try:
        return step()
    except (OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"--data-dir: {path} is no Parquet file that can be read ({error}); write it anew.") from error


def table_of(examples: list[Example], path: Path) -> Any:
    """Examples as a `datasets.Dataset`; raises UserError where they do not make one."""
    import datasets  # a second to import

    if not examples:
        raise UserError(f"--data-dir: {path} is empty; write one example into each line, or remove it.")
    try:
        return datasets.Dataset.from_list(examples)
    except (ValueError, TypeError) as error:  # pyarrow's, for a column with numbers here and texts there
        raise UserError(f"--data-dir: {path} has a column whose values are not of one kind ({error}).") from error
