"""Text from a trained model, token by token, on any layout.

There is no cache of keys and values: each new token recomputes its whole row, which is kept at the full length so that
every step has the same shapes. What stands behind the last token is hidden from it, as during training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megatron.basics.errors import RunFault, UserError
from megatron.basics.seeds import seed_for
from megatron.data.collate import collate
from megatron.device.device import Device
from megatron.evaluation.options import GenerationOptions
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.sampling import choose_token
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
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[int]]:
    """The new tokens of each prompt; the last one is the end token where the model ended the text itself.

    chunks: the model of this rank, without gradient buffers. Every prompt has at least one token and draws from its own
    generator, a function of (seed, its number): neither layout nor batch changes what is drawn. Data-parallel ranks
    share the prompts; every rank gets all results. advance(n): n more tokens of this rank's prompts are there. A
    collective. Raises RunFault for logits that are not finite.
    """
    check_lengths(prompts, options, prompt_rows)
    for chunk in chunks:
        chunk.eval()
    size = options.micro_batch_size
    results: dict[int, list[int]] = {}
    for first in range(grid.data_rank * size, len(prompts), grid.data_size * size):
        numbers = range(first, min(first + size, len(prompts)))
        rows = _Rows([prompts[number] for number in numbers], prompt_rows, device)
        generators = [torch.Generator().manual_seed(seed_for(options.seed, "generate", number)) for number in numbers]
        for _ in range(options.max_new_tokens):
            logits = read_outputs(chunks, [rows.batch], partial(_next_logits, rows, grid))
            rows.append(_choose(logits, rows, generators, options, vocabulary_size, grid))
            advance(len(numbers))
            if all(rows.ended):
                break
        results |= dict(zip(numbers, rows.new_tokens, strict=True))
    gathered: list[dict[int, list[int]]] = [{}] * grid.data_size
    dist.all_gather_object(gathered, results, group=grid.data_group)
    everything = {number: tokens for part in gathered for number, tokens in part.items()}
    return [everything[number] for number in range(len(prompts))]


class _Rows:
    """Prompts that grow, as one batch whose token tensor is written in place.

    positions: int64 [b], where each row predicts its next token.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], prompt_rows: PromptRows, device: Device) -> None:
        rows, positions = zip(*map(prompt_rows.arrange, prompts), strict=True)
        self.end_token = prompt_rows.rules.end_token
        self.new_tokens: list[list[int]] = [[] for _ in prompts]
        self.ended = [False] * len(prompts)
        self.positions = torch.tensor(positions)
        self.batch = collate(rows).map(device.put)

    def append(self, chosen: Sequence[int]) -> None:
        """Add one token to every row that has not ended."""
        for number, token in enumerate(chosen):
            if self.ended[number]:
                continue
            self.new_tokens[number].append(token)
            self.ended[number] = token == self.end_token
            behind = int(self.positions[number]) + 1
            if behind < self.batch.tokens.shape[1]:  # else the row is full, and the token was a label alone
                self.batch.tokens[number, behind] = token
                self.positions[number] = behind


def _next_logits(rows: _Rows, grid: Grid, _: Batch, outputs: Tensor) -> Tensor:
    """Logits of each row's next token, float32 [b, padded vocabulary] on the host, equal on all tensor ranks."""
    number = torch.arange(outputs.shape[1], device=outputs.device)
    own = outputs[rows.positions.to(outputs.device), number].float()
    parts = [torch.empty_like(own) for _ in range(grid.tensor_size)]
    dist.all_gather(parts, own, group=grid.tensor_group)
    return torch.cat(parts, dim=-1).cpu()


def _choose(
    logits: list[Tensor],
    rows: _Rows,
    generators: Sequence[torch.Generator],
    options: GenerationOptions,
    vocabulary_size: int,
    grid: Grid,
) -> list[int]:
    """The next token of each row, chosen on the last pipeline stage and told to the others."""
    chosen = torch.full((len(generators),), rows.end_token, device=rows.batch.tokens.device)
    for part in logits:  # the one micro-batch of the last stage
        real = part[:, :vocabulary_size]
        if not torch.isfinite(real).all():
            raise RunFault("the model's logits are not finite; take an earlier checkpoint with --load-iteration.")
        for number, generator in enumerate(generators):
            chosen[number] = choose_token(
                real[number],
                generator,
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
            )
    if grid.pipeline_size > 1:
        dist.broadcast(chosen, dist.get_global_rank(grid.pipeline_group, grid.pipeline_size - 1), grid.pipeline_group)
    return chosen.tolist()
