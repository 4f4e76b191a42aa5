"""Whether all ranks were given the same work: tasks are read by every rank for itself, from disks that may differ."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.distributed as dist

from megatron.basics.errors import UserError
from megatron.layout.grid import Grid


def require_same_work(work: Mapping[str, Any], grid: Grid) -> None:
    """Raise UserError on every rank where ranks are about to do other things than rank 0. A collective.

    work: by what a person calls it, values that JSON holds; all that decides which collectives follow.
    """
    mine = {what: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest() for what, value in work.items()}
    found = [mine] * grid.world_size
    dist.all_gather_object(found, mine)
    others = [str(rank) for rank, theirs in enumerate(found) if theirs != found[0]]
    if others:
        different = [what for what in found[0] if any(theirs.get(what) != found[0][what] for theirs in found)]
        raise UserError(
            f"rank {', '.join(others)} differs from rank 0 in {', '.join(different)}; let all of them see the same "
            "files and data sets, and start again with the same flags everywhere."
        )


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
            "--templates, --include-path and data sets, and start again."
        )
