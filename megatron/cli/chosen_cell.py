"""The cell of the grid that a command looks at without training it, by its flags and by the record of --load."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from megatron.architectures.legal_pairs import legal_objectives
from megatron.basics.errors import UserError
from megatron.cli.flags import broken_rules
from megatron.cli.inherited import inherited
from megatron.cli.run_config import RunConfig

USUAL_OBJECTIVES = {"causal_decoder": "full_lm", "prefix_decoder": "prefix_lm", "encoder_decoder": "span_corruption"}


def illegal_objective(architecture: str, objective: str | None) -> Iterator[str]:
    """A sentence if this architecture does not learn by this objective; None stands for its usual one."""
    legal = legal_objectives(architecture)
    if objective is not None and objective not in legal:
        yield f"--objective {objective} is not one of {architecture}; it takes: {', '.join(legal)}."


def config_of_cell(
    architecture: str,
    objective: str | None,
    sections: Mapping[str, Any],
    rules: Sequence[Callable[..., Iterator[str]]],
) -> RunConfig:
    """The settings of a run of this cell. Raises UserError with every rule they break."""
    config = RunConfig(architecture=architecture, objective=objective or USUAL_OBJECTIVES[architecture], **sections)
    known = {**sections, "architecture": architecture, "objective": SimpleNamespace(objective=config.objective)}
    faults = [*broken_rules(rules, known)]
    if faults:
        raise UserError(*faults)
    return config


def settings_of_record(
    given: Mapping[str, Any], sections: Sequence[str]
) -> tuple[RunConfig, dict[str, Any], dict[str, Any]]:
    """What the run.json of --load gives to flags that are not given: (its run, its tokenizer, settings by flag).

    sections: the parts of a RunConfig that are taken over. The tokenizer is its `model` and `vocabulary_size`. Raises
    UserError where there is no record that can be read.
    """
    config, tokenizer = _recorded_run(given["load"])
    architecture = given.get("architecture", config.architecture)
    objective = given.get("objective", config.objective)
    kept = inherited(config, sections, given, architecture=architecture, objective=objective)
    return config, tokenizer, {**kept, "architecture": architecture, "objective": objective}


def _recorded_run(folder: str) -> tuple[RunConfig, dict[str, Any]]:
    path = Path(folder) / "run.json"
    if not path.is_file():
        raise UserError(f"--load {folder} holds no run.json; give the folder that a run was saved to.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        config = RunConfig.from_dict(record["options"], source=str(path))
        tokenizer = record["tokenizer"]
        return config, {"model": tokenizer["model"], "vocabulary_size": tokenizer["vocabulary_size"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--load {folder} has a run.json that cannot be read ({error}); give another run folder."
        ) from error
