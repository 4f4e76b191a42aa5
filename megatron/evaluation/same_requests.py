"""Whether all ranks were given the same work: tasks are read by every rank for itself, from disks that may differ."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence

import torch.distributed as dist

from megatron.basics.errors import UserError
from megatron.layout.grid import Grid


def require_same_requests(texts: Iterable[Sequence[int]], grid: Grid) -> None:
    """Raise UserError on every rank where ranks hold other token ids than rank 0, which would leave them waiting.

    A collective.
    """
    digest = hashlib.blake2b(digest_size=16)
    for tokens in texts:
        digest.update(array("q", [len(tokens), *tokens]).tobytes())
    digests = [b""] * grid.world_size
    dist.all_gather_object(digests, digest.digest())
    others = [str(rank) for rank, found in enumerate(digests) if found != digests[0]]
    if others:
        raise UserError(
            f"rank {', '.join(others)} did not read the same tasks as rank 0; let all of them see the same --data-dir, "
            "--include-path and data sets, and start again."
        )
