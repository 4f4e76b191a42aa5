"""lm-eval, with our models in the place of its own.

Every rank runs lm-eval in lockstep on the same requests. To lm-eval each rank is alone (rank 0 of 1), because the model
itself spreads requests over its processes; only the main rank's results are of use.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lm_eval.api.task
import tqdm
from lm_eval.api.model import LM, TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.evaluator import simple_evaluate
from lm_eval.utils import handle_non_serializable

from megatron.basics.errors import UserError
from megatron.evaluation.answering_model import GenerateFunction, ScoreFunction
from megatron.evaluation.lm_eval_examples import templates_compiled_once
from megatron.evaluation.lm_eval_sampling import sampling
from megatron.evaluation.lm_eval_tasks import LoadedTasks
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.scored_rows import ScoreRequest
from megatron.evaluation.stop_texts import StopTexts
from megatron.tokenization.tokenizer import Tokenizer

# For standard errors that have no formula, of F1 for example: 2 % off at most, where lm-eval's 100,000 take minutes.
BOOTSTRAP_ITERATIONS = 1000
WEIGHTS_SHOWN = 5  # of those that a folder lacks, in a sentence


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
        self.backend = "seq2seq" if self._rows.is_split else "causal"

    @classmethod
    def create_from_arg_obj(cls, *_: Any, **__: Any) -> TriarchLM:
        """lm-eval's way from a name to a model, which has no place for a checkpoint on any layout. Raises UserError."""
        raise UserError("lm-eval cannot load a run by itself; use tools/evaluate.py --load RUN --tasks NAME.")

    create_from_arg_string = create_from_arg_obj

    @property
    def eot_token_id(self) -> int:
        """The end token."""
        return self._tokenizer.eod_id

    @property
    def max_length(self) -> int:
        """The most tokens that are predicted at once."""
        return self._rows.room_for_new(1)

    @property
    def scoring_rule(self) -> str:
        """What the model sees of a context, and of texts that are longer than it takes: for those who read scores."""
        end = ", and an end token behind whole texts" if self._ends_whole_texts else ""
        return (
            f"{self._rows.rule} At most {self.max_length} tokens are predicted at once{end}; longer texts in pieces, "
            "each behind as much of what stands before it as the model takes."
        )

    @property
    def _ends_whole_texts(self) -> bool:
        """An encoder-decoder whose inputs had an end token behind them predicts that token, too.

        The tokenizer of its export puts it behind every text, and so lm-eval's own class scores it.
        """
        return self._rows.is_split and self._rows.ends_inputs

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
        end = [self.eot_token_id] if self._ends_whole_texts else []
        wholes: list[tuple[tuple[str, str], list[int], list[int]]] = [
            (("", ""), [], [*self._tokenizer.encode(request.args[0]), *end]) for request in requests
        ]
        return [log_likelihood for log_likelihood, _ in self._loglikelihood_tokens(wholes)]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to the first of the texts that end it, without that."""
        results: dict[int, str] = {}
        for settings, numbers in _by_settings([request.args[1] for request in requests]).values():
            # The prompt of a decoder keeps half of the row.
            most = self._room.targets if self._rows.is_split else self._room.total // 2
            options, until = sampling(settings, most_new_tokens=most, micro_batch_size=self._micro_batch_size)
            contexts = [self._tokenizer.encode(requests[number].args[0]) for number in numbers]
            longest = self._rows.longest_prompt(options.max_new_tokens)
            prompts = [self._rows.prompt(context[max(len(context) - longest, 0) :]) for context in contexts]
            stops = StopTexts(until, self._tokenizer.decode)
            written = self._generate(prompts, options, partial(_ends_alone, stops))
            for number, tokens in zip(numbers, written, strict=True):
                results[number] = _before_first(self._tokenizer.decode(tokens), until)
        return [results[number] for number in range(len(requests))]

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes of the model into its results."""
        return {"model_name": "triarch", "max_length": self.max_length, "backend": self.backend}

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[list[int], list[int]]]:
        """Context and continuation of each pair as ids; together and then parted where both are one text."""
        ids_of = self._encode_each(context for context, _ in pairs)
        if self._rows.is_split:
            ids_of |= self._encode_each(rest for _, rest in pairs)
        else:
            ids_of |= self._encode_each(context + rest for context, rest in pairs)
        for context, rest in pairs:
            given = ids_of[context]
            if self._rows.is_split:
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


def exported_model(folder: Path, *, runs_its_code: bool, batch_size: int, device: str, dtype: str = "float32") -> LM:
    """lm-eval's own class around a folder of Hugging Face, with the weights as transformers loads them.

    Raises UserError where transformers cannot load it, or would score weights of its own making.
    """
    from lm_eval.models.huggingface import HFLM  # with transformers, some seconds to import

    class AsLoaded(HFLM):
        AUTO_MODEL_CLASS: Any

        def _create_model(self, *arguments: Any, **settings: Any) -> None:
            auto_class = self.AUTO_MODEL_CLASS
            self.AUTO_MODEL_CLASS = _WholeModels(auto_class)
            super()._create_model(*arguments, **settings)
            self.AUTO_MODEL_CLASS = auto_class
            # transformers leaves a head of its own alone when it loads a T5; lm-eval ties all weights once more, by a
            # config that transformers 5 always sets to tied, and would score another model.
            self._model.tie_weights = lambda *_, **__: None

    try:
        return AsLoaded(
            pretrained=str(folder),
            dtype=dtype,
            softmax_dtype="float32",  # else sums of log-probabilities have the digits of the logits' dtype
            trust_remote_code=runs_its_code,
            batch_size=batch_size,
            device=device,
        )
    except UserError:
        raise
    except Exception as error:  # each class refuses what it dislikes in its own way
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"--hf {folder} cannot be loaded by transformers: {reason}.") from error


@dataclass(frozen=True)
class _WholeModels:
    """transformers' Auto class, which for its part gives weights that a folder lacks random values."""

    auto_class: Any

    def from_pretrained(self, folder: str, *arguments: Any, **settings: Any) -> Any:
        model, info = self.auto_class.from_pretrained(folder, *arguments, **settings, output_loading_info=True)
        made_up = sorted([*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])])
        if made_up:
            shown = ", ".join(made_up[:WEIGHTS_SHOWN])
            more = f" and {len(made_up) - WEIGHTS_SHOWN} more" if len(made_up) > WEIGHTS_SHOWN else ""
            raise UserError(f"--hf {folder} has no weights for {shown}{more}; download or save it again.")
        return model


def evaluate(
    model: LM,
    tasks: LoadedTasks,
    *,
    limit: float | None,
    num_fewshot: int | None,
    batch_size: int,
) -> dict[str, Any]:
    """lm-eval's results as plain JSON values; empty on ranks for which lm-eval keeps none."""
    # For standard errors lm-eval would fork this process, which the threads of collectives do not survive.
    os.environ["DISABLE_MULTIPROC"] = "1"
    with (
        _bars_on_terminals_alone(),
        templates_compiled_once(),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", module=r"sklearn\.")  # a bootstrap sample without an F1 counts as 0
        results = simple_evaluate(
            model=model,
            tasks=tasks.specs,
            task_manager=tasks.manager,
            num_fewshot=num_fewshot,
            limit=limit,
            batch_size=batch_size,
            bootstrap_iters=BOOTSTRAP_ITERATIONS,
            log_samples=False,
        )
    plain: dict[str, Any] = json.loads(json.dumps(results or {}, default=handle_non_serializable))
    for configuration in plain.get("configs", {}).values():
        configuration.pop("custom_dataset", None)  # the source text of a function of ours
    return plain


@contextlib.contextmanager
def _bars_on_terminals_alone() -> Iterator[None]:
    """lm-eval's bars, one or two for each task, are no lines for a log; ours have some for it."""
    modules: tuple[Any, ...] = (tqdm, lm_eval.api.task)
    before = tqdm.tqdm
    for module in modules:
        module.tqdm = partial(before, disable=None)
    try:
        yield
    finally:
        for module in modules:
            module.tqdm = before


def _ends_alone(stops: StopTexts, _: Sequence[int], new_tokens: Sequence[int]) -> bool:
    """Whether an answer has ended, read as it is scored: as a text of its own."""
    return stops.has_ended([], new_tokens)


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
