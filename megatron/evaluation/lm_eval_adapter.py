"""lm-eval, with our models in the place of its own: the one file that knows it.

Every rank runs lm-eval in lockstep on the same requests. To lm-eval each rank is alone (rank 0 of 1), because the model
itself spreads requests over its processes; only the main rank's results are of use.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import handle_non_serializable

from megatron.basics.errors import UserError, nearest_name
from megatron.evaluation.local_data import SPLITS, DataSetName, LocalData, find_local_data
from megatron.evaluation.options import GenerationOptions
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.score import Score
from megatron.evaluation.scored_rows import ScoreRequest
from megatron.tokenization.tokenizer import Tokenizer

DEFAULT_NEW_TOKENS = 256  # lm-eval's, for tasks that do not say how much to write
# For standard errors that have no formula, of F1 for example: 2 % off at most, where lm-eval's 100,000 take minutes.
BOOTSTRAP_ITERATIONS = 1000
SAMPLING_SETTINGS = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
GREEDY_DEFAULTS: dict[str, Any] = {"num_beams": 1, "repetition_penalty": 1.0}

ScoreFunction = Callable[[Sequence[ScoreRequest]], list[Score]]
GenerateFunction = Callable[[Sequence[Sequence[int]], GenerationOptions, Callable[[list[int]], bool]], list[list[int]]]


@register_model("triarch")
class TriarchLM(TemplateLM):
    """A trained model as lm-eval sees it: texts come in, token ids go to `score` and `generate`.

    score, generate: collectives over every process of the model, bound to it. How a context is read is prompt_rows'
    rule. Source of the interface: lm-eval 0.4.13, api/model.py.
    """

    def __init__(
        self,
        score: ScoreFunction,
        generate: GenerateFunction,
        tokenizer: Tokenizer,
        prompt_rows: PromptRows,
        micro_batch_size: int,
    ) -> None:
        super().__init__()
        self._score, self._generate = score, generate
        self._tokenizer, self._rows = tokenizer, prompt_rows
        self._micro_batch_size = micro_batch_size
        self._room = prompt_rows.architecture.room(prompt_rows.rules)
        self.backend = "seq2seq" if self._room.is_split else "causal"

    @property
    def eot_token_id(self) -> int:
        """The end token."""
        return self._tokenizer.eod_id

    @property
    def max_length(self) -> int:
        """The most tokens that are predicted at once."""
        return self._rows.room_for_new(1)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text, without special tokens: rows add what training had."""
        return self._tokenizer.encode(string)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood, whether greedy decoding would write it) of each continuation."""
        pairs = [_spaces_moved(*request.args) for request in requests]
        encoded = self._encode_pairs(pairs)
        return self._loglikelihood_tokens([(("", ""), [*context], [*rest]) for context, rest in encoded])

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        wanted = [ScoreRequest(tuple(context), tuple(rest)) for _, context, rest in requests if rest]
        scores = iter(self._score(wanted) if wanted else [])
        # A continuation without tokens is certain.
        found = [next(scores) if rest else None for *_, rest in requests]
        return [(score.log_likelihood, score.is_greedy) if score else (0.0, True) for score in found]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text, every token predicted once, with as much before it as fits a row."""
        wholes: list[tuple[tuple[str, str], list[int], list[int]]] = [
            (("", ""), [], self._tokenizer.encode(request.args[0])) for request in requests
        ]
        return [log_likelihood for log_likelihood, _ in self._loglikelihood_tokens(wholes)]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to the first of the texts that end it, without that."""
        results: dict[int, str] = {}
        for settings, numbers in _by_settings([request.args[1] for request in requests]).values():
            options, until = self._generation_options(settings)
            contexts = [self._tokenizer.encode(requests[number].args[0]) for number in numbers]
            longest = self._rows.longest_prompt(options.max_new_tokens)
            prompts = [context[-longest:] or [self.eot_token_id] for context in contexts]
            written = self._generate(prompts, options, partial(self._has_ended, until))
            for number, tokens in zip(numbers, written, strict=True):
                results[number] = _before_first(self._tokenizer.decode(tokens), until)
        return [results[number] for number in range(len(requests))]

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes of the model into its results."""
        return {"model_name": "triarch", "max_length": self.max_length, "backend": self.backend}

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[list[int], list[int]]]:
        """Context and continuation of each pair as ids; together and then parted where both are one text."""
        ids_of = self._encode_each(context for context, _ in pairs)
        if self._room.is_split:
            ids_of |= self._encode_each(rest for _, rest in pairs)
        else:
            ids_of |= self._encode_each(context + rest for context, rest in pairs)
        for context, rest in pairs:
            given = ids_of[context]
            if self._room.is_split:
                predicted = ids_of[rest]
            else:
                whole = ids_of[context + rest]
                # One token may span the end of the context and the continuation: it is predicted then.
                cut = min(len(given), max(len(whole) - 1, 0)) if rest else len(whole)
                given, predicted = whole[:cut], whole[cut:]
            yield given, predicted

    def _encode_each(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """Ids of each text that differs: choices share their context."""
        different = list(dict.fromkeys(texts))
        return {
            text: ids.tolist() for text, ids in zip(different, self._tokenizer.encode_batch(different), strict=True)
        }

    def _generation_options(self, settings: Mapping[str, Any]) -> tuple[GenerationOptions, list[str]]:
        """Settings of a task as ours, and the texts that end what is written."""
        known = normalize_gen_kwargs(dict(settings), DEFAULT_NEW_TOKENS)
        unknown = {
            name: value
            for name, value in known.items()
            if name not in SAMPLING_SETTINGS and value != GREEDY_DEFAULTS.get(name)
        }
        if unknown:
            raise UserError(
                f"a task asks for generation with {unknown}, which --load cannot do; use --hf, or leave it."
            )
        limit = self._room.targets if self._room.is_split else self._room.total // 2  # the prompt keeps its half
        is_greedy = not known["do_sample"]
        options = GenerationOptions(
            max_new_tokens=max(1, min(int(known["max_gen_toks"]), limit)),
            temperature=0.0 if is_greedy else float(known["temperature"]),
            top_k=None if is_greedy else known.get("top_k"),
            top_p=1.0 if is_greedy else float(known.get("top_p", 1.0)),
            micro_batch_size=self._micro_batch_size,
        )
        return options, [text for text in known["until"] if text]

    def _has_ended(self, until: Sequence[str], tokens: list[int]) -> bool:
        text = self._tokenizer.decode(tokens)
        return any(end in text for end in until)


@dataclass(frozen=True)
class LoadedTasks:
    """Tasks with their data, and those without: lm-eval's name to the reason.

    data: the files and folders that replaced a task's own data set, by task and split. manager: lm-eval's own.
    """

    specs: list[Any]
    missing: dict[str, str]
    data: dict[str, dict[str, str]]
    manager: Any


class TaskShelf:
    """The tasks that lm-eval has, with those of --include-path, and data from --data-dir in the place of their own."""

    def __init__(
        self, names: Sequence[str], include_paths: Sequence[str], data_folder: Path | None, *, with_examples: bool
    ) -> None:
        """Look the names up. with_examples: training examples of local data will stand in front of questions."""
        for library in ("lm_eval", "datasets"):
            logging.getLogger(library).setLevel(logging.ERROR)
        own = [str(Path(path).resolve()) for path in include_paths]
        self._manager = lm_eval.tasks.TaskManager(
            include_path=[*_folders_of_tasks(names), *own], include_defaults=False
        )
        if self.unknown(names):  # groups and tags have their tasks anywhere; reading all takes some 15 s
            self._manager = lm_eval.tasks.TaskManager(include_path=own or None)
        self._data_folder = data_folder
        self._splits = SPLITS if with_examples else SPLITS[1:]

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
        loaded = LoadedTasks([], {}, {}, self._manager)
        for name in dict.fromkeys(self._expanded(names)):
            local = self._local_data(name)
            try:
                loaded.specs.extend(self._build(name, local))
            except (OSError, ValueError, RuntimeError) as error:  # of the datasets library, offline or on the network
                loaded.missing[name] = _first_line(error)
            else:
                if local is not None:
                    loaded.data[name] = {split: str(path) for split, path in local.files.items()}
        return loaded

    def looked_in(self, name: str) -> str:
        """Where the data of a task was looked for, as the end of a sentence."""
        wanted = self._data_set_of(name)
        if self._data_folder is None or wanted is None:
            return f"its data set {wanted.path if wanted else name} could not be fetched"
        return (
            f"{self._data_folder} holds neither {name}/validation.jsonl nor {wanted.folder}/validation nor requests of "
            f"{name}, and the cache of data sets has no {wanted.path}"
        )

    def _expanded(self, names: Sequence[str]) -> Iterator[str]:
        for name in names:
            entry = self._manager.task_index[name]
            if entry.kind.name == "TAG":
                yield from sorted(entry.tags)
            else:
                yield name

    def _data_set_of(self, name: str) -> DataSetName | None:
        configuration = self._manager.task_index[name].cfg or {}
        path = configuration.get("dataset_path")
        return DataSetName(path, configuration.get("dataset_name")) if isinstance(path, str) else None

    def _local_data(self, name: str) -> LocalData | None:
        wanted = self._data_set_of(name)
        if self._data_folder is None or wanted is None:
            return None
        return find_local_data(self._data_folder, name, wanted, self._splits)

    def _build(self, name: str, local: LocalData | None) -> list[Any]:
        if local is None:
            loaded = self._manager.load([name])
            return [*loaded["groups"].values()] or [*loaded["tasks"].values()]
        names_of_splits = {"train": "training_split", "validation": "validation_split", "test": "test_split"}
        splits = {field: split if split in local.files else None for split, field in names_of_splits.items()}
        data_set = local.data_set()
        overrides = {"task": name, **splits, "custom_dataset": lambda **_: data_set, "dataset_kwargs": None}
        # lm-eval merges settings into a known task for members of a group only.
        return [*self._manager.load([{"group": "local", "task": [overrides]}])["tasks"].values()]


def evaluate(
    model: TriarchLM | str,
    model_arguments: Mapping[str, Any] | None,
    tasks: LoadedTasks,
    *,
    limit: float | None,
    num_fewshot: int | None,
    batch_size: int,
    device: str | None = None,
) -> dict[str, Any]:
    """lm-eval's results as plain JSON values; empty on ranks for which lm-eval keeps none.

    model: ours, or lm-eval's name of one of its own classes with the arguments of that.
    """
    # For standard errors lm-eval would fork this process, which the threads of collectives do not survive.
    os.environ["DISABLE_MULTIPROC"] = "1"
    with contextlib.redirect_stdout(sys.stderr):  # what it prints by the way is no result
        results = simple_evaluate(
            model=model,
            model_args=dict(model_arguments) if model_arguments is not None else None,
            tasks=tasks.specs,
            task_manager=tasks.manager,
            num_fewshot=num_fewshot,
            limit=limit,
            batch_size=batch_size,
            device=device,
            bootstrap_iters=BOOTSTRAP_ITERATIONS,
            log_samples=False,
        )
    plain: dict[str, Any] = json.loads(json.dumps(results or {}, default=handle_non_serializable))
    for configuration in plain.get("configs", {}).values():
        configuration.pop("custom_dataset", None)  # the source text of a function of ours
    return plain


def _folders_of_tasks(names: Sequence[str]) -> list[str]:
    """Folders of lm-eval with files that define single tasks of these names."""
    definition = re.compile(rf"^task: *[\"']?({'|'.join(map(re.escape, names))})[\"']?\s*$", re.MULTILINE)
    root = Path(lm_eval.tasks.__file__).parent
    found = {path.parent for path in root.rglob("*.yaml") if definition.search(path.read_text(encoding="utf-8"))}
    return sorted(map(str, found))


def _spaces_moved(context: str, continuation: str) -> tuple[str, str]:
    """Spaces at the end of a context open the continuation's first word."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def _by_settings(settings: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Mapping[str, Any], list[int]]]:
    """Numbers of requests that share their settings."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, values in enumerate(settings):
        numbers[json.dumps(values, sort_keys=True)].append(number)
    return {key: (settings[found[0]], found) for key, found in numbers.items()}


def _before_first(text: str, until: Iterable[str]) -> str:
    for end in until:
        text = text.split(end)[0]
    return text


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
