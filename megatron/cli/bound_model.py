"""A loaded model with what scores and writes for it, bars on the main rank included."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from megatron.basics.progress import progress
from megatron.evaluation.answering_model import GenerateFunction, ScoreFunction, TrainedModel
from megatron.evaluation.generate import generate
from megatron.evaluation.options import GenerationOptions
from megatron.evaluation.same_requests import require_same_requests
from megatron.evaluation.score import Score, score
from megatron.evaluation.scored_rows import ScoreRequest
from megatron.evaluation.stop_texts import Stop

if TYPE_CHECKING:
    from torch import nn

    from megatron.device.device import Device
    from megatron.evaluation.prompt_rows import PromptRows
    from megatron.layout.grid import Grid
    from megatron.tokenization.tokenizer import Tokenizer


def bound_model(
    chunks: Sequence[nn.Module],
    grid: Grid,
    device: Device,
    tokenizer: Tokenizer,
    prompt_rows: PromptRows,
    micro_batch_size: int,
) -> TrainedModel:
    """The model whose chunks this rank holds; its functions are collectives, and end where ranks ask other things."""
    size = tokenizer.vocabulary_size
    return TrainedModel(
        _scorer(chunks, grid, device, prompt_rows, size, micro_batch_size),
        _writer(chunks, grid, device, prompt_rows, size),
        tokenizer,
        prompt_rows,
        micro_batch_size,
    )


def _scorer(
    chunks: Sequence[nn.Module],
    grid: Grid,
    device: Device,
    prompt_rows: PromptRows,
    vocabulary_size: int,
    micro_batch_size: int,
) -> ScoreFunction:
    """`score` of this model, with a bar on the main rank."""

    def score_all(requests: Sequence[ScoreRequest]) -> list[Score]:
        require_same_requests([part for one in requests for part in (one.context, one.continuation)], grid)
        with _bar("score", len(requests), "request", grid) as advance:
            return score(
                chunks,
                grid,
                device,
                requests,
                prompt_rows,
                vocabulary_size=vocabulary_size,
                micro_batch_size=micro_batch_size,
                advance=advance,
            )

    return score_all


def _writer(
    chunks: Sequence[nn.Module], grid: Grid, device: Device, prompt_rows: PromptRows, vocabulary_size: int
) -> GenerateFunction:
    """`generate` of this model, with a bar on the main rank."""

    def write_all(prompts: Sequence[Sequence[int]], options: GenerationOptions, stop: Stop) -> list[list[int]]:
        require_same_requests(prompts, grid)
        at_most = -(-len(prompts) // grid.data_size) * options.max_new_tokens  # texts may end themselves
        with _bar("generate at most", at_most, "token", grid) as advance:
            return generate(
                chunks,
                grid,
                device,
                prompts,
                options,
                prompt_rows,
                vocabulary_size=vocabulary_size,
                stop=stop,
                advance=advance,
            )

    return write_all


@contextlib.contextmanager
def _bar(what: str, total: int | None, unit: str, grid: Grid) -> Iterator[Callable[[int], None]]:
    shown: AbstractContextManager[Any] = progress(what, total, unit) if grid.is_main else nullcontext()
    with shown as bar:
        yield bar.advance if bar else lambda _: None
