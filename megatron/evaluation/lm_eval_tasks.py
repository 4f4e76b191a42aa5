"""Tasks of lm-eval by name, with data from this machine in the place of what they would fetch."""

from __future__ import annotations

import json
import logging
import random
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
import numpy as np
import torch
from datasets.exceptions import DatasetsError
from lm_eval.api.task import Task

# Not exported by lm-eval, and the only way to a definition with its functions, which it has no other use for.
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import handle_non_serializable

from megatron.basics.errors import UserError, nearest_name
from megatron.evaluation.lm_eval_examples import check_examples
from megatron.evaluation.lm_eval_sampling import sampling_faults
from megatron.evaluation.local_data import DataSetName, LocalData, find_local_data
from megatron.evaluation.random_accuracy import random_accuracies, tasks_by_name
from megatron.evaluation.task_splits import TaskSplits

NAMES_SHOWN = 5  # of the tasks of a group, in a sentence
PYTHON_SEED, OTHER_SEED = 0, 1234  # lm-eval's, whose command sets them before it loads tasks


@dataclass(frozen=True)
class LoadedTasks:
    """Tasks with their data, and those without: lm-eval's name to the reason.

    specs: lm-eval's tasks and groups. data: the files and folders that replaced a task's own data set, by task and
    split. data_sets: names of the data sets that they stand for, by task. manager: lm-eval's own.
    """

    manager: Any
    specs: list[Any] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    data: dict[str, dict[str, str]] = field(default_factory=dict)
    data_sets: dict[str, str] = field(default_factory=dict)

    def outline(self) -> dict[str, Any]:
        """What decides which requests there are and how they are answered, but for their texts; plain values."""
        settings = {
            name: [
                [task.config.task, task.OUTPUT_TYPE, task.config.generation_kwargs, task.config.num_fewshot]
                for task in tasks
            ]
            for spec in self.specs
            for name, tasks in tasks_by_name(spec)
        }
        return {
            "tasks": [*settings],
            "tasks without data": sorted(self.missing),
            "data of tasks": {task: sorted(files) for task, files in self.data.items()},
            "settings of tasks": json.loads(json.dumps(settings, default=handle_non_serializable)),
        }

    def sampling_faults(self) -> list[str]:
        """One sentence for each thing that a task which generates text asks for and our generation cannot do."""
        settings = {
            task.config.task: task.config.generation_kwargs or {}
            for spec in self.specs
            for _, tasks in tasks_by_name(spec)
            for task in tasks
            if task.OUTPUT_TYPE == "generate_until"
        }
        return [fault for name, own in settings.items() for fault in sampling_faults(name, own)]

    def random_accuracies(self) -> dict[str, float]:
        """What guessing reaches in tasks and groups of multiple choice, after they were evaluated."""
        return random_accuracies(self.specs)


class TaskShelf:
    """The tasks that lm-eval has, with those of --include-path, and data from --data-dir in the place of their own."""

    def __init__(
        self,
        names: Sequence[str],
        include_paths: Sequence[str],
        data_folder: Path | None,
        num_fewshot: int | None = None,
    ) -> None:
        """Look the names up. num_fewshot: examples that will stand in front of questions; None as each task says."""
        for library in ("lm_eval", "datasets"):
            logging.getLogger(library).setLevel(logging.ERROR)
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        own = [str(Path(path).resolve()) for path in include_paths]
        self._manager = lm_eval.tasks.TaskManager(include_path=own or None, include_defaults=False)
        # lm-eval has some 14,000 files of tasks, and reading them all takes 15 s.
        elsewhere = [name for name in names if name not in self._manager.task_index]
        if elsewhere:
            folders = [*_folders_of_tasks(elsewhere), *own]
            self._manager = lm_eval.tasks.TaskManager(include_path=folders, include_defaults=False)
        if self.unknown(names):  # tags, and groups with their tasks anywhere
            self._manager = lm_eval.tasks.TaskManager(include_path=own or None)
        self._data_folder = data_folder
        self._num_fewshot = num_fewshot

    def unknown(self, names: Sequence[str]) -> list[str]:
        """One sentence for each name that is no task, tag or group."""
        faults = []
        for name in names:
            if name not in self._manager.task_index:
                guess = nearest_name(name, self._manager.all_tasks)
                hint = f"did you mean {guess}?" if guess else "`lm-eval ls tasks` shows all."
                faults.append(f"--tasks {name} is not known; {hint}")
        return faults

    def load(self, names: Sequence[str]) -> LoadedTasks:
        """Tasks by name, tags expanded; those whose data cannot be had are `missing`. Raises UserError."""
        loaded = LoadedTasks(self._manager)
        different = [*dict.fromkeys(self._without_tags(names))]
        faults = [*self._twice(different)]
        if faults:
            raise UserError(*faults)
        for name in different:
            _seed()  # tasks may draw: choices of GPQA are shuffled, for example
            local = {task: found for task in self._tasks_of(name) if (found := self._local_data(task)) is not None}
            try:
                for task, found in local.items():
                    self._manager.task_index[task] = self._with_local_data(task, found)
                built = self._manager.load([name])
            except UserError:
                raise
            except Exception as error:  # of the datasets library, of templates and functions of a task: of any kind
                step = _failed_step(error)
                if step != "data" or len(local) == len(self._tasks_of(name)):
                    raise UserError(_unusable(name, step, local, error)) from error
                loaded.missing[name] = self._reason(error)
                continue
            loaded.specs.append(built["groups"].get(name) or built["tasks"][name])
            for task, found in local.items():
                loaded.data[task] = {split: str(path) for split, path in found.files.items()}
                loaded.data_sets[task] = str(self._data_set_of(task))
            _, tasks = next(tasks_by_name(loaded.specs[-1]))
            for task in tasks:
                if task.config.task in local:
                    files = local[task.config.task].files
                    check_examples(task, str(files[task.config.test_split or task.config.validation_split]))
        return loaded

    def looked_in(self, name: str, reason: str) -> str:
        """Where the data of a task was looked for, and what to do, as the end of a sentence. reason: of `missing`."""
        tasks = self._tasks_of(name)
        if self._data_folder is None:
            return (
                f"its data set could not be fetched ({reason}); put it into a folder as {name}/validation.jsonl and "
                "give that folder as --data-dir."
            )
        without = [task for task in tasks if self._local_data(task) is None]
        if tasks != [name]:
            shown = ", ".join(without[:NAMES_SHOWN]) + (" and others" if len(without) > NAMES_SHOWN else "")
            return (
                f"{self._data_folder} holds nothing for {len(without)} of its {len(tasks)} tasks ({shown}); add "
                "TASK/validation.jsonl for each of them, or name tasks that have data."
            )
        wanted = self._data_set_of(name)
        places = [
            f"{name}/validation.jsonl",
            *([f"{wanted.folder}/validation"] if wanted else []),
            f"requests of {name}",
        ]
        return (
            f"{self._data_folder} holds none of {', '.join(places)}; put one of them there, or leave --data-dir out to "
            "fetch data sets."
        )

    def _without_tags(self, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            entry = self._manager.task_index[name]
            if entry.kind.name == "TAG":
                yield from sorted(entry.tags)
            else:
                yield name

    def _twice(self, names: Iterable[str]) -> Iterator[str]:
        found: dict[str, str] = {}
        for name in names:
            for task in self._tasks_of(name):
                if task in found:
                    yield f"--tasks {found[task]} and {name} both have {task}; leave one of them out."
                    break
            found |= dict.fromkeys(self._tasks_of(name), name)

    def _tasks_of(self, name: str) -> list[str]:
        """The single tasks below a name of the index; of a group those that have names there."""
        entry = self._manager.task_index.get(name)
        if entry is None:
            return []
        if entry.kind.name == "TAG":
            return sorted(entry.tags)
        if entry.kind.name != "GROUP":
            return [name]
        return self._tasks_of_members(entry.cfg.get("task") or [])

    def _tasks_of_members(self, members: Sequence[Any]) -> list[str]:
        """The single tasks below members of a group: names, or definitions in the group's own file."""
        tasks = []
        for member in members:
            if isinstance(member, str):
                tasks += self._tasks_of(member)
            elif member.get("group") in self._manager.task_index:
                tasks += self._tasks_of(member["group"])
            else:
                inside = member.get("task") or []
                tasks += self._tasks_of_members([inside] if isinstance(inside, str) else inside)
        return tasks

    def _data_set_of(self, name: str) -> DataSetName | None:
        configuration = self._manager.task_index[name].cfg or {}
        path = configuration.get("dataset_path")
        return DataSetName(path, configuration.get("dataset_name")) if isinstance(path, str) else None

    def _reason(self, error: Exception) -> str:
        """Why a task has no data."""
        if self._data_folder is None:
            return _first_line(error)
        return f"neither in {self._data_folder} nor in the cache of data sets"

    def _local_data(self, name: str) -> LocalData | None:
        """The splits on this machine that a task is scored on and takes its examples from."""
        wanted = self._data_set_of(name)
        if self._data_folder is None or wanted is None:
            return None
        own = self._manager.task_index[name].cfg
        splits = TaskSplits.of(own)
        found = find_local_data(self._data_folder, name, wanted, splits)
        if found is None:
            return None
        takes_examples = own.get("num_fewshot") if self._num_fewshot is None else self._num_fewshot
        if not takes_examples:
            return found.only(str(splits.scored(found.files)))
        if splits.fewshot and splits.local(splits.fewshot, found.files) is None:
            raise UserError(
                f"--tasks {name} takes its examples from the split {splits.fewshot}, which {self._data_folder} lacks; "
                f"put it there as {name}/{splits.fewshot}.jsonl, or give --num-fewshot 0."
            )
        return found

    def _with_local_data(self, name: str, local: LocalData) -> Any:
        """The index's entry of a task, with other data."""
        entry = self._manager.task_index[name]
        own = load_yaml(entry.yaml_path, resolve_func=True) if entry.yaml_path else entry.cfg
        changes: dict[str, Any] = {
            **TaskSplits.of(own).settings(local.files),
            "custom_dataset": lambda **_: local.data_set(),
            "dataset_kwargs": None,
        }
        if isinstance(own.get("fewshot_config"), Mapping):
            changes["fewshot_config"] = {key: value for key, value in own["fewshot_config"].items() if key != "split"}
        return replace(entry, yaml_path=None, cfg={**own, **changes})


def _seed() -> None:
    """The same draws on every rank and machine, and for a task whatever other tasks are named."""
    random.seed(PYTHON_SEED)
    np.random.seed(OTHER_SEED)
    torch.manual_seed(OTHER_SEED)


def _folders_of_tasks(names: Sequence[str]) -> list[str]:
    """Folders of lm-eval with files that define single tasks of these names."""
    definition = re.compile(rf"^[\"']?task[\"']?: *[\"']?({'|'.join(map(re.escape, names))})[\"']?\s*$", re.MULTILINE)
    root = Path(lm_eval.tasks.__file__).parent
    found = {path.parent for path in root.rglob("*.yaml") if definition.search(path.read_text(encoding="utf-8"))}
    return sorted(map(str, found))


def _failed_step(error: Exception) -> str:
    """Where lm-eval was when it failed: at the `definition` of a task, its `data`, or the `examples` in that."""
    step, fetches = "definition", False
    for frame, _ in traceback.walk_tb(error.__traceback__):
        task = frame.f_locals.get("self")
        if isinstance(task, Task):
            fetches = fetches or frame.f_code.co_name == "download"
            step = "examples" if hasattr(task, "dataset") else "definition"
        if fetches and str(frame.f_globals.get("__name__")).startswith("datasets."):
            return "data"
    return "data" if fetches and isinstance(error, OSError | DatasetsError) else step


def _unusable(name: str, step: str, local: Mapping[str, LocalData], error: Exception) -> str:
    reason = f"{type(error).__name__}: {_first_line(error)}"
    if step == "definition":
        return f"--tasks {name} cannot be set up ({reason}); mend its definition, or install what it asks for."
    places = ", ".join(str(path) for found in local.values() for path in found.files.values()) or "its data set"
    return (
        f"--tasks {name} cannot use {places} ({reason}); give it the columns of the data set that the task was written "
        "for."
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
