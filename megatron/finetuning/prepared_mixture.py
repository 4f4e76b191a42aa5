"""What was prepared of a mixture, by this call of the command and by those before it."""

from __future__ import annotations

from dataclasses import dataclass, field

from megatron.finetuning.copies import KnownTexts
from megatron.finetuning.prepared_unit import Settings
from megatron.finetuning.unit_record import UnitRecord
from megatron.finetuning.units import Units


@dataclass
class PreparedMixture:
    """rendered: prompts of this call, in `seconds`; known: None without a search for copies."""

    units: Units
    settings: Settings
    known: KnownTexts | None = None
    records: list[UnitRecord] = field(default_factory=list)
    rendered: int = 0
    kept_from_before: int = 0
    seconds: float = 0.0

    def of(self, role: str) -> list[UnitRecord]:
        """The records of a role, in the order of the mixture."""
        return [record for record in self.records if record.role == role]
