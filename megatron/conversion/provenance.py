"""Where the weights of an exported folder come from: the entry of its config that says so, and that comes back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from megatron.basics.errors import UserError
from megatron.data.options import START_TOKENS, DataOptions

ENTRY = "triarch"  # of config.json, which transformers keeps as it is
NAME = re.compile(r"[a-z0-9_]{1,100}")  # of an architecture or an objective, also of one that is not known here


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """architecture, objective, iteration: of the checkpoint. lineage: what the weights were trained on, oldest first.

    seq_length, decoder_seq_length: rows of its run, in tokens. begin_with_start_token, start_token: as the flags.
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
    start_token: str = DataOptions.start_token

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
            is_sound = provenance._is_sound()
        except TypeError:
            is_sound = False
        if not is_sound:
            raise UserError(f"config.json: the entry {ENTRY} is not as an export wrote it; remove the entry.")
        return provenance

    def _is_sound(self) -> bool:
        """Whether every field is what it can be; an entry may have been written by anybody."""
        return (
            all(map(_is_name, (self.architecture, self.objective)))
            and _is_count(self.iteration)
            and _is_count(self.seq_length, least=1)
            and (self.decoder_seq_length is None or _is_count(self.decoder_seq_length, least=1))
            and all(isinstance(flag, bool) for flag in (self.begin_with_start_token, self.ends_inputs))
            and self.start_token in START_TOKENS
            and isinstance(self.lineage, list)
            and all(map(_is_stage, self.lineage))
        )


def imported_stage(architecture: str, objective: str, source: str) -> dict[str, Any]:
    """What a lineage says of weights that somebody else has trained."""
    name = "".join(letter if letter.isprintable() else "_" for letter in source)
    return {"architecture": architecture, "objective": objective, "tokens": 0, "loss_tokens": 0, "imported": name}


def _is_stage(stage: Any) -> bool:
    if not isinstance(stage, dict):
        return False
    source = stage.get("imported", "")
    return (
        all(_is_name(stage.get(name)) for name in ("architecture", "objective"))
        and all(_is_count(stage.get(name)) for name in ("tokens", "loss_tokens"))
        and isinstance(source, str)
        and source.isprintable()
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
