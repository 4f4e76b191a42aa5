"""What a run folder says about its losses: curves, and where the run was started again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.basics.errors import UserError

Curve = list[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class LossCurves:
    """(iteration, loss) of every step and validation, ascending; resumes: (iteration, layout) of each later start."""

    name: str
    training: Curve
    validation: Curve
    resumes: list[tuple[int, str]]


def read_loss_curves(run_folder: Path, loss: str) -> LossCurves:
    """The curves of the loss of that name. Raises UserError for a folder without them."""
    steps = values_by_iteration(run_folder / "metrics.jsonl", loss)
    validations = values_by_iteration(run_folder / "metrics.jsonl", f"{loss} validation")
    if not steps:
        raise UserError(f"{run_folder}/metrics.jsonl has no step with a {loss}; check --load and --loss.")
    starts = _read_starts(run_folder / "run.json")
    return LossCurves(
        name=run_folder.name,
        training=sorted(steps.items()),
        validation=sorted(validations.items()),
        resumes=[(start["iteration"], start["layout"]) for start in starts if start["iteration"] > 0],
    )


def values_by_iteration(path: Path, key: str) -> dict[int, float]:
    """The values of one key. A run that was killed repeats the steps after its checkpoint: the later line counts."""
    values: dict[int, float] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check the path.") from error
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # a run that was killed while writing, or that is writing now
                break
            raise UserError(f"{path}, line {number} is not JSON: {error}.") from error
        if key in record:
            values[record["iteration"]] = record[key]
    return values


def _read_starts(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}); check --load.") from error
