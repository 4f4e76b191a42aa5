"""What a preparation says of itself: data.yaml for finetune_t0.py, report.json and report.md for people."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from megatron.basics.atomic_files import atomic_writer, write_json
from megatron.basics.errors import UserError
from megatron.finetuning.pair_maker import Fate
from megatron.finetuning.prepared_mixture import PreparedMixture
from megatron.finetuning.unit_record import UnitRecord
from megatron.finetuning.units import HELD_OUT, TRAIN, VALIDATION

DATA_FILE, REPORT, REPORT_FOR_PROGRAMS = "data.yaml", "report.md", "report.json"
NOT_LOOKED_FOR = "what is trained on may hold the very questions of evaluation."
LEFT_OUT = (Fate.EMPTY, Fate.COPIED, Fate.TOO_LONG, Fate.UNREADABLE)


def write_report(preparation: PreparedMixture) -> None:
    """Write the three files, each atomically; data.yaml last, because it is what training begins with.

    Raises UserError in its place where there is nothing to train on.
    """
    folder = preparation.settings.folder
    write_json(folder / REPORT_FOR_PROGRAMS, report_of(preparation))
    _write_lines(folder / REPORT, markdown(preparation))
    if not any(record.prompts for record in preparation.of(TRAIN)):
        counts = {
            fate.name.lower().replace("_", " "): sum(record.left_out(fate) for record in preparation.of(TRAIN))
            for fate in LEFT_OUT
        }
        raise UserError(
            f"no prompt of {preparation.units.mixture.name} is left to train on: "
            + ", ".join(f"{number:,} are {fate}" for fate, number in counts.items() if number)
            + f"; {folder / REPORT} says why."
        )
    _write_lines(folder / DATA_FILE, data_settings(preparation))


def remove_report(folder: Path) -> None:
    """Remove the three files: what they name is about to be made again."""
    for name in (DATA_FILE, REPORT, REPORT_FOR_PROGRAMS):
        (folder / name).unlink(missing_ok=True)


def data_settings(preparation: PreparedMixture) -> Iterator[str]:
    """The lines of data.yaml: `finetune_t0.py --config FOLDER/data.yaml`.

    Weights are numbers of prompts: with the cap, T0's proportional mixing.
    """
    yield "# Weight and prefix of each data set. Where they have moved, start tools/prepare_tasks.py again."
    for flag, role in (("train_data_path", TRAIN), ("valid_data_path", VALIDATION)):
        filled = [record for record in preparation.of(role) if record.prompts]
        if filled:
            yield f"{flag}:"
        for record in filled:
            prefix = (preparation.settings.folder / record.role / record.name).resolve()
            yield f'  - "{record.prompts}"'
            yield f"  - {json.dumps(str(prefix))}"


def report_of(preparation: PreparedMixture) -> dict[str, Any]:
    """All that is known, for programs."""
    settings, units = preparation.settings, preparation.units
    return {
        "mixture": units.mixture.name,
        "cap": units.mixture.cap,
        "seed": settings.seed,
        "max_input_length": settings.max_input_length,
        "max_target_length": settings.max_target_length,
        "tokenizer": settings.tokenizer.source,
        "leak_check": {
            "done": preparation.known is not None,
            "texts": len(preparation.known or ()),
            "against": preparation.known.names if preparation.known is not None else [],
        },
        "held_out": [task.name for task in units.mixture.held_out],
        "missing": units.missing,
        "without_validation": units.without_validation,
        "missing_held_out": units.missing_held_out,
        "data_sets": [dataclasses.asdict(record) for record in preparation.records],
    }


def markdown(preparation: PreparedMixture) -> Iterator[str]:
    """The report for people: tables, then sentences."""
    yield f"# Tasks of the mixture {preparation.units.mixture.name}"
    yield ""
    for role, heading in ((TRAIN, "Training"), (VALIDATION, "Validation"), (HELD_OUT, "Held out")):
        records = preparation.of(role)
        if records:
            yield from _table(heading, records)
    yield from _listed("Copies of evaluation in training", _on_copies(preparation))
    yield from _listed("Missing", _on_missing(preparation))
    yield from _listed("Prompts with faults", _on_faults(preparation.records))


def _table(heading: str, records: Sequence[UnitRecord]) -> Iterator[str]:
    total = sum(record.prompts for record in records)
    yield f"## {heading}"
    yield ""
    columns = ("data set", "examples", "templates", "prompts", "share", "tokens: inputs, targets")
    yield f"| {' | '.join(columns)} | inputs cut | empty | copies | too long | unreadable |"
    yield f"|---|{'---:|' * (len(columns) + len(LEFT_OUT))}"
    for record in records:
        counts = " | ".join(f"{record.left_out(fate):,}" for fate in LEFT_OUT)
        share = f"{100 * record.prompts / total:.1f} %" if total else "-"
        tokens, cut = f"{record.input_tokens:,}, {record.target_tokens:,}", f"{record.cut_inputs:,}"
        if record.role == HELD_OUT:
            tokens = cut = "-"
        yield (
            f"| {record.name} | {record.examples:,} | {len(record.templates)} | {record.prompts:,} | {share} | "
            f"{tokens} | {cut} | {counts} |"
        )
    yield ""


def _on_copies(preparation: PreparedMixture) -> Iterator[str]:
    if preparation.known is None:
        yield f"NOT LOOKED FOR (--no-leak-check): {NOT_LOOKED_FOR}"
        return
    names = ", ".join(preparation.known.names) or "nothing, because no split for evaluation is at hand"
    yield f"Looked for {len(preparation.known):,} texts of {names}."
    for record in preparation.of(TRAIN):
        if record.alike:
            yield (
                f"{record.name}: {record.alike:,} of its examples say, but for numbers and single words, the same as "
                "many others and as some of evaluation, so these were compared by inputs and targets of their prompts "
                "alone."
            )
        for owner, number in record.copies.items():
            yield f"{record.name}: {number:,} prompts are left out, because they are in {owner}."
        yield from (sentence[:1].upper() + sentence[1:] for sentence in record.first_copies)


def _on_missing(preparation: PreparedMixture) -> Iterator[str]:
    units = preparation.units
    for name, reason in units.missing.items():
        yield f"{name} is not trained on: {reason}"
    for record in preparation.of(TRAIN):
        if not record.prompts:
            yield f"{record.name} is not trained on: none of its prompts is left."
        if record.published not in (None, record.examples):
            yield f"{record.name} has {record.examples:,} examples here and {record.published:,} as published."
    for name, reason in units.without_validation.items():
        yield f"{name} is not validated on: {reason}"
    if not units.mixture.held_out:
        yield f"Nothing is held out, because the mixture {units.mixture.name} says so: no task may be called unseen."
    for name, reason in units.missing_held_out.items():
        yield f"{name} is held out, but nothing of it is here to look for in training: {reason}"


def _on_faults(records: Sequence[UnitRecord]) -> Iterator[str]:
    for record in records:
        where = f"{record.name}, {record.split}"
        for counts in record.templates:
            if counts.unrankable:
                yield (
                    f"{where}: {counts.unrankable:,} of {counts.prompts:,} prompts could not be ranked, e.g. "
                    f"{counts.first_unrankable}"
                )
            if counts.first_left_out:
                number = counts.too_long + counts.unreadable
                yield f"{where}: {number:,} of {counts.prompts:,} prompts are left out, e.g. {counts.first_left_out}"
            if counts.empty == counts.prompts:
                yield f"{where}: the template {counts.name!r} applies to none of its examples."


def _listed(heading: str, sentences: Iterator[str]) -> Iterator[str]:
    lines = [f"- {sentence}" for sentence in sentences]
    if lines:
        yield from (f"## {heading}", "", *lines, "")


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    with atomic_writer(path, "w") as file:
        file.writelines(f"{line}\n" for line in lines)
