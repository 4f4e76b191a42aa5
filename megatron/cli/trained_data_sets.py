"""Which data sets of prompts the weights of a checkpoint have learnt, as its record and that of its run tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from megatron.checkpoint.contents import Contents
from megatron.objectives.registry import OBJECTIVES


def training_prefixes(contents: Contents, starts: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """Of the files of prompts that the weights were trained on, each once; none where they have learnt text alone.

    None where that is not known: weights that were made elsewhere, or that learnt prompts before their last run, and a
    run of whose starts one said nothing of its data. starts: those of run.json, see `run_record.starts_of`.
    """
    stages = [stage for stage in contents.lineage if stage["tokens"] or stage.get("imported")]
    if all(_reads_text(stage) for stage in stages):
        return []
    is_own = bool(stages) and stages[-1] is contents.lineage[-1]  # and not of a run whose weights took no step
    if is_own and not stages[-1].get("imported") and all(_reads_text(stage) for stage in stages[:-1]):
        return _prefixes_of(starts, contents.progress.iteration)
    return None


def _reads_text(stage: Mapping[str, Any]) -> bool:
    """Whether a stage of a lineage is known to have learnt no prompts."""
    name = stage["objective"]
    return not stage.get("imported") and name in OBJECTIVES and not OBJECTIVES[name].reads_pairs


def _prefixes_of(starts: Sequence[Mapping[str, Any]], iteration: int) -> list[str] | None:
    """Of the data of all starts that led to an iteration; None where there are more of them than these, or others."""
    try:
        if starts[0].get("consumed_tokens", starts[0]["iteration"]):  # it went on with what another folder tells of
            return None
        data = [start["data"] for start in starts if start["iteration"] < iteration]
        parts = [part for blends in data for part in blends["train_data_path"] or blends["data_path"]]
        return [*dict.fromkeys(part["prefix"] for part in parts)] or None
    except (LookupError, TypeError, AttributeError):
        return None
