"""What is known of a prepared split: PREFIX.prepared.json, written last, so that a split that has one is finished."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from megatron.basics.atomic_files import write_json
from megatron.finetuning.pair_maker import WHOLE, Fate, MadeExample
from megatron.finetuning.units import Unit

FORMAT = 3
COPIES_NAMED = 20


@dataclass
class TemplateCounts:
    """Prompts of a template by what became of them; `first_*` is the first one's fault, a whole sentence.

    unrankable: prompts that are kept, and that rank classification could not score.
    """

    name: str
    kept: int = 0
    empty: int = 0
    copied: int = 0
    too_long: int = 0
    unreadable: int = 0
    unrankable: int = 0
    first_unrankable: str = ""
    first_left_out: str = ""

    @property
    def prompts(self) -> int:
        """All of them."""
        return self.kept + self.empty + self.copied + self.too_long + self.unreadable


@dataclass
class UnitRecord:
    """A prepared split.

    made_from: changes when anything does that the files depend on. cut_inputs: how many prompts lost tokens of theirs.
    copies: prompts left out, by where their copies are; first_copies: sentences on the first of them. alike:
    examples that say what many others and one of evaluation say, and of which prompts alone were compared. files: bytes
    by name.
    """

    made_from: str
    role: str
    name: str
    data_set: str
    split: str
    source: str
    examples: int
    published: int | None
    templates: list[TemplateCounts]
    input_tokens: int = 0
    target_tokens: int = 0
    longest_inputs: int = 0
    longest_target: int = 0
    cut_inputs: int = 0
    copies: dict[str, int] = field(default_factory=dict)
    first_copies: list[str] = field(default_factory=list)
    alike: int = 0
    files: dict[str, int] = field(default_factory=dict)

    @property
    def prompts(self) -> int:
        """Those that are kept."""
        return sum(counts.kept for counts in self.templates)

    def left_out(self, fate: Fate) -> int:
        """Prompts of this fate."""
        return sum(getattr(counts, fate.name.lower()) for counts in self.templates)

    def first_faults(self) -> list[str]:
        """A sentence for the first copies, and for the first prompt of each template that has another fault."""
        faults = [*self.first_copies]
        for counts in self.templates:
            faults += filter(None, (counts.first_left_out, counts.first_unrankable))
        return faults

    def add(self, made: MadeExample, templates: Sequence[Any]) -> None:
        """Count an example. templates: of the unit."""
        for number, fate in zip(made.templates, made.fates, strict=True):
            counts, name = self.templates[number], Fate(fate).name.lower()
            setattr(counts, name, getattr(counts, name) + 1)
        for number, fault, is_kept in made.remarks:
            counts = self.templates[number]
            sentence = f"{templates[number].title}: example {made.number} has {fault}."
            counts.unrankable += is_kept
            if is_kept:
                counts.first_unrankable = counts.first_unrankable or sentence
            else:
                counts.first_left_out = counts.first_left_out or sentence
        for number, owner in made.copies:
            affected = sum(fate == Fate.COPIED for fate in made.fates) if number == WHOLE else 1
            self.copies[owner] = self.copies.get(owner, 0) + affected
            if len(self.first_copies) < COPIES_NAMED:
                what = "all that it says" if number == WHOLE else f"inputs and target of {templates[number].title}"
                self.first_copies.append(f"example {made.number} of {self.data_set} is in {owner}, too: {what}.")
        self.input_tokens += sum(made.input_lengths)
        self.target_tokens += sum(made.target_lengths)
        self.cut_inputs += made.cut_inputs
        self.longest_inputs = max(self.longest_inputs, *made.input_lengths, 0)
        self.longest_target = max(self.longest_target, *made.target_lengths, 0)

    def write(self, prefix: Path) -> None:
        """Atomically."""
        write_json(record_path(prefix), {"format": FORMAT, **dataclasses.asdict(self)})


def new_record(unit: Unit, made_from: str) -> UnitRecord:
    """Of a unit of which nothing is prepared."""
    counts = [TemplateCounts(template.name) for template in unit.templates]
    source = str(unit.source.path)
    return UnitRecord(
        made_from, unit.role, unit.name, unit.data_set, unit.split, source, unit.examples, unit.published, counts
    )


def read_finished(unit: Unit, folder: Path, made_from: str) -> UnitRecord | None:
    """The record of a unit that is prepared from what is at hand now; None where there is work to do."""
    prefix = unit.prefix(folder)
    try:
        content = json.loads(record_path(prefix).read_text("utf-8"))
        if content.pop("format") != FORMAT or content["made_from"] != made_from:
            return None
        templates = [TemplateCounts(**counts) for counts in content.pop("templates")]
        record = UnitRecord(**content, templates=templates)
        record.source, record.published = str(unit.source.path), unit.published  # which change no file
        sizes = {name: (prefix.parent / name).stat().st_size for name in record.files}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # not there, torn by hand, of another version
        return None
    return record if sizes == record.files else None


def record_path(prefix: Path) -> Path:
    """PREFIX -> PREFIX.prepared.json."""
    return prefix.with_name(f"{prefix.name}.prepared.json")


def digest_of(*parts: Any) -> str:
    """One digest of values that JSON can hold."""
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
