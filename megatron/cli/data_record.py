"""What run.json says of the data of a start, and what has changed since: their order follows from all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from megatron.cli.run_config import RunConfig
from megatron.data.options import blend_of
from megatron.data.pair_paths import PAIR_SUFFIXES
from megatron.objectives.registry import OBJECTIVES

BLENDS = ("data_path", "train_data_path", "valid_data_path")


def data_record(config: RunConfig) -> dict[str, Any]:
    """Split, and by setting the prefix, weight and sizes of each part of a blend, bytes by ending."""
    suffixes = PAIR_SUFFIXES if OBJECTIVES[config.objective].reads_pairs else ("",)
    endings = [f"{suffix}{kind}" for suffix in suffixes for kind in (".bin", ".idx")]
    blends = {
        name: [
            {"prefix": prefix, "weight": weight, "bytes": {ending: _size(prefix + ending) for ending in endings}}
            for weight, prefix in blend_of(getattr(config.data, name))
        ]
        for name in BLENDS
    }
    return {"split": config.data.split, **blends}


def data_changes(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What is another between two records, a phrase for each.

    Parts are told apart by their places, as their order is: one that has moved is the same, and so are weights that
    stand in the same ratios. Raises KeyError, TypeError or AttributeError for what is no record.
    """
    if now["split"] != before["split"]:
        yield f"--split is {now['split']} and was {before['split']}"
    for name in BLENDS:
        flag, old, new = f"--{name.replace('_', '-')}", before[name], now[name]
        if len(old) != len(new):
            yield f"{flag} names {len(new)} data sets and named {len(old)}"
            continue
        is_reweighted = _shares(old) != _shares(new)
        for was, part in zip(old, new, strict=True):
            if part["bytes"] != was["bytes"]:
                yield f"{part['prefix']} has files of other sizes"
            if is_reweighted and part["weight"] != was["weight"]:
                yield f"{part['prefix']} weighs {part['weight']:g} and weighed {was['weight']:g}"


def _shares(parts: list[dict[str, Any]]) -> list[float]:
    total = sum(part["weight"] for part in parts)
    return [round(part["weight"] / total, 12) for part in parts]


def _size(path: str) -> int | None:
    """Of a file that is there."""
    try:
        return os.path.getsize(path)
    except OSError:
        return None
