"""Parameters that several pipeline stages hold copies of, other than the embedding that megatron-core ties itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megatron.layout.grid import Grid


def mark_copy(parameter: nn.Parameter, *, is_original: bool) -> None:
    """Make a parameter one of several copies. The first stage that has it holds the original, which alone is counted.

    The marks are megatron-core's: `shared` leaves copies out of the gradient norm, and `shared_embedding` gives each
    its own bucket, so that all stages cut it alike over the data-parallel ranks and gradients may be summed behind the
    reduction over these.
    """
    for name, value in (("shared", not is_original), ("shared_embedding", True)):
        setattr(parameter, name, value)


def is_original(parameter: nn.Parameter) -> bool:
    """Whether this one of several copies is the one that counts."""
    return not getattr(parameter, "shared", False)


def sum_gradients_of_copies(chunks: Sequence[nn.Module], grid: Grid) -> None:
    """Give each copy the sum of the gradients of all; behind megatron-core's reductions. A collective of the pipeline.

    A chunk names its copies in `pipeline_copies`: by name the shape, and the parameter or None where it holds none.
    """
    if grid.pipeline_size * len(chunks) == 1:
        return
    held: dict[str, list[Tensor]] = {}
    totals: dict[str, Tensor] = {}
    for chunk in chunks:
        copies: dict[str, tuple[Any, nn.Parameter | None]] = getattr(chunk, "pipeline_copies", {})
        for name, (shape, parameter) in copies.items():
            gradient = getattr(parameter, "main_grad", None)
            if gradient is not None:
                held.setdefault(name, []).append(gradient)
            if name not in totals:
                device = next(chunk.parameters()).device
                totals[name] = torch.zeros(shape, dtype=torch.float32, device=device)
    for name, total in sorted(totals.items()):
        for gradient in held.get(name, []):
            total += gradient
        if grid.pipeline_size > 1:
            dist.all_reduce(total, group=grid.pipeline_group)
        for gradient in held.get(name, []):
            gradient.copy_(total)
