"""Logits of two forms of a model on the same rows, and how far they are apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from megatron.conversion.verification_sample import Sample
from megatron.data.collate import collate
from megatron.loop.forward_only import read_outputs
from megatron.records.row import Row

# What the order of additions may change in float32, for logits of ordinary size.
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Parity:
    """positions: compared, all words of each. Differences are absolute, of float32 logits.

    same_top: share of positions with the same likeliest word. log_likelihood: in nats a predicted token, by the
    checkpoint and by the folder; predicted: how many tokens these are means of. root_mean_square: of the logits.
    """

    positions: int
    max_difference: float
    mean_difference: float
    same_top: float
    predicted: int
    log_likelihood: tuple[float, float]
    root_mean_square: float

    @property
    def default_tolerance(self) -> float:
        """Rounding grows with the numbers that are rounded."""
        return TOLERANCE * max(1.0, self.root_mean_square) if math.isfinite(self.root_mean_square) else TOLERANCE


def our_logits(chunks: Sequence[nn.Module], sample: Sample, words: int, advance: Callable[[int], None]) -> list[Tensor]:
    """Float32 [positions, words] of each row, from a model that is whole in this process; chunks: its only one."""
    for chunk in chunks:
        chunk.eval()
    logits: list[Tensor] = []
    for row in sample.rows:
        logits += read_outputs(chunks, [collate([row])], lambda _, outputs: outputs[:, 0, :words].float())
        advance(1)
    return logits


def compare(ours: Sequence[Tensor], theirs: Iterator[Tensor], sample: Sample) -> Parity:
    """ours, theirs: float32 [positions, words] of each row, on the host; ours come first where they count."""
    sums = torch.zeros(6, dtype=torch.float64)
    largest = torch.zeros(())
    for one, other, row in zip(ours, theirs, sample.rows, strict=True):
        difference = (one - other).abs()
        # A NaN must not be lost, and it is larger than everything for amax.
        largest = torch.maximum(largest, difference.amax())
        sums += torch.stack(
            [
                difference.sum(dtype=torch.float64),
                one.square().sum(dtype=torch.float64),
                (one.argmax(-1) == other.argmax(-1)).double().sum(),
                _log_likelihood(one, row),
                _log_likelihood(other, row),
                torch.tensor(float(row.loss_mask.sum()), dtype=torch.float64),
            ]
        )
    total, squares, same, mine, others, predicted = sums.tolist()
    positions = len(sample.rows) * sample.row_length
    numbers = positions * ours[0].shape[1]
    return Parity(
        positions=positions,
        max_difference=float(largest),
        mean_difference=total / numbers,
        same_top=same / positions,
        predicted=int(predicted),
        log_likelihood=(mine / predicted, others / predicted),
        root_mean_square=math.sqrt(squares / numbers),
    )


def _log_likelihood(logits: Tensor, row: Row) -> Tensor:
    """Of the row's predicted tokens together, float64 []."""
    labels = torch.from_numpy(row.labels).long()[:, None]
    chosen = logits.gather(1, labels)[:, 0] - logits.logsumexp(-1)
    return (chosen.double() * torch.from_numpy(row.loss_mask)).sum()
