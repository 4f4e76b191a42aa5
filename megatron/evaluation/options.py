"""What `tools/generate.py` can be told."""

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
