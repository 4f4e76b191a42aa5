"""Where the weights of an exported folder come from: the entry of its config that says so, and that comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from megatron.basics.errors import UserError

ENTRY = "triarch"  # of config.json, which transformers keeps as it is
STAGE = {"architecture": str, "objective": str, "tokens": int, "loss_tokens": int}
KINDS = {
    "architecture": str,
    "objective": str,
    "iteration": int,
    "lineage": list,
    "seq_length": int,
    "decoder_seq_length": int | None,
    "begin_with_start_token": bool,
    "ends_inputs": bool,
}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """architecture, objective, iteration: of the checkpoint. lineage: what the weights were trained on, oldest first.

    seq_length, decoder_seq_length: rows of its run, in tokens. begin_with_start_token: as --begin-with-start-token.
    ends_inputs: complete inputs had the end token behind them.
    """

    architecture: str
    objective: str
    iteration: int
    lineage: list[dict[str, Any]]
    seq_length: int
    decoder_seq_length: int | None
    begin_with_start_token: bool
    ends_inputs: bool = True

    def entry(self) -> dict[str, Any]:
        """For config.json."""
        return {ENTRY: asdict(self)}

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Provenance | None:
        """The entry of a folder that we wrote, None of any other. Raises UserError for one that was broken since."""
        entry = config.get(ENTRY)
        if entry is None:
            return None
        try:
            provenance = cls(**entry)
            is_sound = all(isinstance(getattr(provenance, name), kind) for name, kind in KINDS.items())
            is_sound = is_sound and all(_is_stage(stage) for stage in provenance.lineage)
        except TypeError:
            is_sound = False
        if not is_sound:
            raise UserError(f"config.json: the entry {ENTRY} is not as an export wrote it; remove the entry.")
        return provenance


def imported_stage(architecture: str, objective: str, source: str) -> dict[str, Any]:
    """What a lineage says of weights that somebody else has trained."""
    return {"architecture": architecture, "objective": objective, "tokens": 0, "loss_tokens": 0, "imported": source}


def _is_stage(stage: Any) -> bool:
    return isinstance(stage, dict) and all(isinstance(stage.get(name), kind) for name, kind in STAGE.items())
