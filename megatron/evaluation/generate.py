"""Text from a trained model, token by token, on any layout.

The first pass reads the prompts, each later one the tokens that were chosen last; keys and values stay in a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megatron.attention.key_value_cache import KeyValueCache
from megatron.basics.errors import RunFault, UserError
from megatron.basics.seeds import seed_for
from megatron.device.device import Device
from megatron.evaluation.growing_rows import GrowingRows
from megatron.evaluation.options import GenerationOptions
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.sampling import choose_token
from megatron.evaluation.stop_texts import Stop
from megatron.evaluation.weight_order import pays_off, stored_by_columns
from megatron.layout.grid import Grid
from megatron.loop.forward_only import read_outputs
from megatron.records.batch import Batch


def check_lengths(prompts: Sequence[Sequence[int]], options: GenerationOptions, prompt_rows: PromptRows) -> None:
    """Raise UserError for prompts that leave no room for the new tokens in a row."""
    longest = prompt_rows.longest_prompt(options.max_new_tokens)
    if longest < 1:
        raise UserError(
            f"--max-new-tokens {options.max_new_tokens} does not fit the model's rows; use "
            f"{prompt_rows.room_for_new(1)} or less."
        )
    faults = [
        f"--prompt number {number} has {len(prompt)} tokens, which with --max-new-tokens {options.max_new_tokens} do "
        f"not fit the model's rows; shorten it to {longest} tokens."
        for number, prompt in enumerate(prompts, start=1)
        if len(prompt) > longest
    ]
    if faults:
        raise UserError(*faults)


def generate(
    chunks: Sequence[nn.Module],
    grid: Grid,
    device: Device,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    prompt_rows: PromptRows,
    *,
    vocabulary_size: int,
    first_number: int = 0,
    stop: Stop = lambda *_: False,
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[int]]:
    """The new tokens of each prompt; the last one is the end token where the model ended the text itself.

    chunks: the model of this rank, without gradient buffers. Every prompt is as `prompt_rows.prompt` gives it and draws
    from its own generator, a function of (seed, its number): neither layout nor batch changes what is drawn.
    first_number: of the first prompt, where a list comes in portions. stop(prompt, its new tokens), the same function
    on all ranks, ends it there. Data-parallel ranks share the prompts, those of similar length at once; every rank gets
    all results. advance(n): n more tokens of this rank's prompts are there. A collective. Raises RunFault for logits
    that are not finite.
    """
    check_lengths(prompts, options, prompt_rows)
    for chunk in chunks:
        chunk.eval()
    size = options.micro_batch_size
    by_length = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
    results: dict[int, list[int]] = {}
    shared = -(-len(prompts) // grid.data_size)
    with stored_by_columns(chunks) if pays_off(shared * options.max_new_tokens) else nullcontext():
        for first in range(grid.data_rank * size, len(prompts), grid.data_size * size):
            numbers = by_length[first : first + size]
            seeds = [seed_for(options.seed, "generate", first_number + number) for number in numbers]
            rows = GrowingRows(
                [prompts[number] for number in numbers], prompt_rows, options.max_new_tokens, device, stop
            )
            _grow(rows, chunks, grid, device, options, seeds, vocabulary_size, advance)
            results |= dict(zip(numbers, rows.new_tokens, strict=True))
    gathered: list[dict[int, list[int]]] = [{}] * grid.data_size
    dist.all_gather_object(gathered, results, group=grid.data_group)
    everything = {number: tokens for part in gathered for number, tokens in part.items()}
    return [everything[number] for number in range(len(prompts))]


def _grow(
    rows: GrowingRows,
    chunks: Sequence[nn.Module],
    grid: Grid,
    device: Device,
    options: GenerationOptions,
    seeds: Sequence[int],
    vocabulary_size: int,
    advance: Callable[[int], None],
) -> None:
    """Add tokens until every row has ended or as many as it may have."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    cache = KeyValueCache()
    for _ in range(options.max_new_tokens):
        logits = read_outputs(chunks, [rows.unread()], partial(_next_logits, grid), cache)
        rows.append(_choose(logits, generators, options, vocabulary_size, grid, device))
        advance(len(generators))
        if all(rows.ended):
            return


def _next_logits(grid: Grid, _: Batch, outputs: Tensor) -> Tensor:
    """Logits of each row's next token, float32 [b, padded vocabulary] on the host, equal on all tensor ranks."""
    own = outputs[:, 0].float()
    if grid.tensor_size > 1:
        parts = [torch.empty_like(own) for _ in range(grid.tensor_size)]
        dist.all_gather(parts, own.contiguous(), group=grid.tensor_group)
        own = torch.cat(parts, dim=-1)
    return own.cpu()


def _choose(
    logits: list[Tensor],
    generators: Sequence[torch.Generator],
    options: GenerationOptions,
    vocabulary_size: int,
    grid: Grid,
    device: Device,
) -> Tensor:
    """The next token of each row, int64 [b], chosen on the last pipeline stage and told to the others."""
    chosen = torch.zeros(len(generators), dtype=torch.int64)
    for part in logits:  # the one micro-batch of the last stage
        real = part[:, :vocabulary_size]
        if not torch.isfinite(real.sum(dtype=torch.float64)):
            raise RunFault("the model's logits are not finite; take an earlier checkpoint with --load-iteration.")
        for number, generator in enumerate(generators):
            chosen[number] = choose_token(
                real[number],
                generator,
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
            )
    chosen = device.put(chosen)
    if grid.pipeline_size > 1:
        dist.broadcast(chosen, dist.get_global_rank(grid.pipeline_group, grid.pipeline_size - 1), grid.pipeline_group)
    return chosen
