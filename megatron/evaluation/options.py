"""What commands can be told that use a trained model: which one, and what to do with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from megatron.basics.option import Options, option
from megatron.layout.options import LayoutOptions


@dataclass(frozen=True, kw_only=True)
class TrainedModelOptions(Options):
    """Which checkpoint to read, and how to spread it; the model's own settings stand in the checkpoint."""

    group: ClassVar[str] = "model"

    load: str | None = option(None, "Run folder with checkpoints, written on any layout.", metavar="RUN")
    load_iteration: int | None = option(
        None, "Checkpoint of --load to take. Default: the newest complete one.", minimum=0
    )
    tokenizer_model: str | None = option(
        None, "The run's tokenizer, where it has moved. Default: where it was during training."
    )
    tensor_model_parallel_size: int = option(1, "Processes that share each layer.", minimum=1)
    pipeline_model_parallel_size: int = option(1, "Processes that share the stack of layers.", minimum=1)
    device: str = option(
        "auto", "Where to compute; auto takes CUDA when a GPU is there.", choices=("auto", "cpu", "cuda")
    )

    @property
    def layout(self) -> LayoutOptions:
        """The layout; processes beyond one copy of the model hold further copies."""
        return LayoutOptions(
            tensor_model_parallel_size=self.tensor_model_parallel_size,
            pipeline_model_parallel_size=self.pipeline_model_parallel_size,
            device=self.device,
        )

    def rules(self) -> Iterator[str]:
        """There must be something to load."""
        if not self.load:
            yield "--load is missing; give the run folder of a trained model."


@dataclass(frozen=True, kw_only=True)
class GenerationOptions(Options):
    """What to write after, how much, and how tokens are chosen."""

    group: ClassVar[str] = "generation"

    prompt: list[str] = option(
        [],
        "Texts to go on from. Default: each line of standard input; an empty line begins a new document.",
        metavar="TEXT",
    )
    special_tokens: bool = option(
        False,
        "Names of special tokens in a prompt, such as [S] or those of sentinels, stand for the tokens, and what is "
        "written shows them.",
    )
    stop: list[str] = option([], "Texts that end what is written; each is cut off with all behind it.", metavar="TEXT")
    output_path: str | None = option(
        None,
        "New file for a line of JSON a prompt (prompt, text, tokens, ended_by) in place of printed texts; lines are "
        "added while others are written, and the last one may be cut where the command is killed.",
        metavar="FILE",
    )
    max_new_tokens: int = option(64, "Tokens to add, fewer where the model ends the document.", minimum=1)
    temperature: float = option(1.0, "Divides the logits; 0 always takes the likeliest token.", minimum=0.0)
    top_k: int | None = option(None, "Choose among this many likeliest tokens. Default: all.", minimum=1)
    top_p: float = option(
        1.0,
        "Choose among the likeliest tokens that together have this probability (Holtzman et al. 2020).",
        above=0.0,
        maximum=1.0,
    )
    seed: int = option(1234, "The same seed gives the same text.", minimum=0)
    micro_batch_size: int = option(8, "Prompts that go through the model at once.", minimum=1)

    def rules(self) -> Iterator[str]:
        """Which of these settings need each other."""
        if self.temperature == 0 and (self.top_k is not None or self.top_p < 1):
            yield "--top-k and --top-p choose nothing at --temperature 0; leave them out or raise the temperature."


@dataclass(frozen=True, kw_only=True)
class ScoredModelOptions(TrainedModelOptions):
    """Which model to score: a run of ours, or an exported folder through lm-eval's own class."""

    hf: str | None = option(
        None, "Score this Hugging Face folder with lm-eval's own class `hf` instead, in one process.", metavar="FOLDER"
    )
    dtype: str = option(
        "float32",
        "Format of weights and activations, whatever the model was trained in.",
        choices=("float32", "bfloat16", "float16"),
    )

    def rules(self) -> Iterator[str]:
        """One model, and settings that it takes."""
        if self.hf is None:
            if not self.load:
                yield "--load is missing; give the run folder of a trained model, or an exported folder as --hf."
            return
        if self.load:
            yield "--load and --hf exclude each other; give one model."
        names = ("load_iteration", "tokenizer_model", "tensor_model_parallel_size", "pipeline_model_parallel_size")
        yield from self.without_effect(names, "with --hf")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Options):
    """Which tasks to score, on which data, and where the report goes."""

    group: ClassVar[str] = "evaluation"

    tasks: list[str] = option([], "Tasks, tags or groups by lm-eval's names.", metavar="NAME")
    eai_eval: bool = option(
        False, "Score the zero-shot tasks of Wang et al. 2022 and the mean over those that it aggregates."
    )
    t0_eval: bool = option(
        False,
        "Score the held-out tasks of T0 (Sanh et al. 2022) through all prompts of each; their choices are ranked by "
        "log-likelihood.",
    )
    t0_tasks: list[str] = option(
        [],
        "Tasks of T0-Eval: names of its list, or YAML files of the same form. Default: the whole list.",
        metavar="NAME",
    )
    templates: str | None = option(
        None, "Folder with templates in promptsource's format, for --t0-eval.", metavar="DIR"
    )
    data_dir: str | None = option(
        None, "Folder with data of tasks, which then replaces what they would fetch; no network is used.", metavar="DIR"
    )
    include_path: list[str] = option(
        [], "Folders with YAML files of further tasks, whose Python code is run: take no stranger's.", metavar="DIR"
    )
    limit: int | None = option(None, "Examples of each task or data set, the first ones. Default: all.", minimum=1)
    num_fewshot: int | None = option(
        None, "Examples in front of each question. Default: as the task says, mostly none.", minimum=0
    )
    micro_batch_size: int = option(8, "Rows that go through the model at once.", minimum=1)
    output_path: str | None = option(
        None,
        "Folder for results.json, results.md, results.html and charts as PNG. Default: print the tables alone.",
        metavar="FOLDER",
    )

    def rules(self) -> Iterator[str]:
        """There is something to do."""
        if not (self.tasks or self.eai_eval or self.t0_eval):
            yield "--tasks is missing; name tasks of lm-eval, or add --eai-eval or --t0-eval for lists of the study."
        if self.t0_eval and self.templates is None:
            yield "--templates is missing; --t0-eval takes a folder of templates, such as that of promptsource 0.2.3."
        if not self.t0_eval:
            yield from self.without_effect(("t0_tasks", "templates"), "without --t0-eval")
        elif not (self.tasks or self.eai_eval):
            yield from self.without_effect(("num_fewshot", "include_path"), "on --t0-eval")
        if self.eai_eval and self.num_fewshot:
            yield f"--num-fewshot {self.num_fewshot} excludes --eai-eval, which is zero-shot; leave one out."
