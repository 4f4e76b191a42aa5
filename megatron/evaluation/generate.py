"""Text from a causal decoder, token by token, on any layout.

There is no cache of keys and values: each new token recomputes its whole row, which is kept at the full length so that
every step has the same shapes. What stands behind the last token is hidden from it by the causal visibility.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megatron.basics.errors import RunFault, UserError
from megatron.basics.seeds import seed_for
from megatron.device.device import Device
from megatron.evaluation.options import GenerationOptions
from megatron.evaluation.sampling import choose_token
from megatron.layout.grid import Grid
from megatron.loop.forward_only import read_outputs
from megatron.records import visibility
from megatron.records.batch import Batch, Visibility


def check_lengths(prompts: Sequence[Sequence[int]], options: GenerationOptions, seq_length: int) -> None:
    """Raise UserError for prompts that leave no room for the new tokens in a row of `seq_length`."""
    if options.max_new_tokens >= seq_length:
        raise UserError(
            f"--max-new-tokens {options.max_new_tokens} does not fit the model's rows of {seq_length} tokens; use "
            f"{max(seq_length // 2, 1)} or less."
        )
    room = seq_length - options.max_new_tokens
    faults = [
        f"--prompt number {number} has {len(prompt)} tokens, which with --max-new-tokens {options.max_new_tokens} do "
        f"not fit the model's rows of {seq_length}; shorten it to {room} tokens."
        for number, prompt in enumerate(prompts, start=1)
        if len(prompt) > room
    ]
    if faults:
        raise UserError(*faults)


def generate(
    chunks: Sequence[nn.Module],
    grid: Grid,
    device: Device,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    *,
    seq_length: int,
    vocabulary_size: int,
    end_of_document: int,
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[int]]:
    """The new tokens of each prompt; the last one is `end_of_document` where the model ended the text itself.

    chunks: the model of this rank, without gradient buffers. Every prompt has at least one token and draws from its own
    generator, a function of (seed, its number): neither layout nor batch changes what is drawn. Data-parallel ranks
    share the prompts; every rank gets all results. advance(n): n more tokens of this rank's prompts are there. A
    collective. Raises RunFault for logits that are not finite.
    """
    check_lengths(prompts, options, seq_length)
    for chunk in chunks:
        chunk.eval()
    size = options.micro_batch_size
    results: dict[int, list[int]] = {}
    for first in range(grid.data_rank * size, len(prompts), grid.data_size * size):
        numbers = range(first, min(first + size, len(prompts)))
        rows = _Rows([prompts[number] for number in numbers], seq_length, end_of_document, device)
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
    """Prompts that grow, as one batch whose token tensor is written in place."""

    def __init__(self, prompts: Sequence[Sequence[int]], seq_length: int, end_of_document: int, device: Device) -> None:
        self.end_of_document = end_of_document
        self.new_tokens: list[list[int]] = [[] for _ in prompts]
        self.ended = [False] * len(prompts)
        self.lengths = torch.tensor([len(prompt) for prompt in prompts])
        tokens = torch.full((len(prompts), seq_length), end_of_document)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        intervals = torch.from_numpy(visibility.causal(seq_length)).repeat(len(prompts), 1, 1)
        self.batch = Batch(
            tokens=device.put(tokens),
            labels=device.put(tokens),
            loss_mask=device.put(torch.zeros(tokens.shape)),
            position_ids=device.put(torch.arange(seq_length).repeat(len(prompts), 1)),
            visibility=Visibility(device.put(intervals), seq_length, is_causal=True),
        )

    def append(self, chosen: Sequence[int]) -> None:
        """Add one token to every row that has not ended."""
        for number, token in enumerate(chosen):
            if not self.ended[number]:
                self.batch.tokens[number, self.lengths[number]] = token
                self.lengths[number] += 1
                self.new_tokens[number].append(token)
                self.ended[number] = token == self.end_of_document


def _next_logits(rows: _Rows, grid: Grid, _: Batch, outputs: Tensor) -> Tensor:
    """Logits of each row's next token, float32 [b, padded vocabulary] on the host, equal on all tensor ranks."""
    number = torch.arange(outputs.shape[1], device=outputs.device)
    own = outputs[rows.lengths.to(outputs.device) - 1, number].float()
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
    chosen = torch.full((len(generators),), rows.end_of_document, device=rows.batch.tokens.device)
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
