"""Random key intervals of every kind, and the yardstick for errors: plain torch in the same dtype."""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = ("causal", "prefix", "bidirectional", "documents", "padded", "any")


def random_intervals(kind: str, batch: int, num_queries: int, num_keys: int, seed: int = 0) -> Tensor:
    """int32 [batch, num_queries, 2]: legal intervals of a kind; `padded` and `any` have empty rows."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *size: int) -> Tensor:
        return torch.randint(0, high, size, generator=generator)

    own = (torch.arange(num_queries) + 1).clamp(max=num_keys).expand(batch, -1)
    start = torch.zeros(batch, num_queries, dtype=torch.int64)
    if kind == "causal":
        end = own
    elif kind == "prefix":
        end = torch.maximum(own, draw(num_keys + 1, batch, 1))
    elif kind == "bidirectional":
        end = torch.full_like(own, num_keys)
    elif kind == "documents":
        start = draw(num_keys + 1, batch, num_queries).cummax(1).values.minimum(own - 1)
        end = own
    elif kind == "padded":
        length = draw(num_keys + 1, batch, 1)
        end = torch.minimum(own, length)
        start = torch.where(torch.arange(num_queries) < length, start, end)
    else:
        start = draw(num_keys + 1, batch, num_queries).sort(1).values
        end = torch.maximum(start, draw(num_keys + 1, batch, num_queries).sort(1).values)
    return torch.stack([start, end], dim=-1).to(torch.int32)


def one_of_each_kind(num_queries: int, num_keys: int) -> Tensor:
    """int32 [len(KINDS), num_queries, 2]: a batch with a sample of every kind."""
    return torch.cat([random_intervals(kind, 1, num_queries, num_keys) for kind in KINDS])


def plain_softmax(scores: Tensor, intervals: Tensor, distance_bias: Tensor | None, scale: float) -> Tensor:
    """What one writes without a fused kernel, every step rounded to the dtype of the scores."""
    num_queries, num_keys = scores.shape[-2:]
    logits = scores * scale
    if distance_bias is not None:
        distance = torch.arange(num_keys) - torch.arange(num_queries)[:, None]
        logits = logits + distance_bias[:, (distance + num_queries - 1).to(scores.device)].to(scores.dtype)
    keys = torch.arange(num_keys, device=scores.device)
    start, end = intervals[:, None, :, None, :].unbind(-1)
    hidden = (keys < start) | (keys >= end)
    return logits.masked_fill(hidden, -torch.inf).softmax(-1).masked_fill(hidden, 0.0)


def assert_at_most_twice_the_error(result: Tensor, plain: Tensor, exact: Tensor, name: str) -> None:
    """Compare root mean squares: a single largest error is luck, and may be four times as large.

    Where plain torch hits the float64 result exactly, the rounding of the result itself is the yardstick.
    """
    assert result.isfinite().all(), name
    rounding = torch.finfo(result.dtype).eps / 4 * exact.abs()

    def root_mean_square(values: Tensor) -> float:
        return values.square().mean().sqrt().item()

    ours, theirs = (result.double() - exact).abs(), (plain.double() - exact).abs()
    assert root_mean_square(ours) <= 2 * max(root_mean_square(theirs), root_mean_square(rounding)), name
    assert ours.max() <= 4 * max(theirs.max(), rounding.max()), name
