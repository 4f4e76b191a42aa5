"""Prepares a mixture: evaluation first, then training without what is in evaluation, then what names both.

FOLDER/train/DATA_SET_inputs.bin, .idx, _targets.bin, .idx      what is trained on
FOLDER/validation/DATA_SET_inputs.bin, ... and DATA_SET.jsonl   the same data sets' other split
FOLDER/held_out/TASK.jsonl                                      tasks that are never trained on
FOLDER/data.yaml                                                settings of finetune_t0.py
FOLDER/report.md, report.json                                   what was kept, left out and not found
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from megatron.basics.atomic_files import write_json
from megatron.basics.errors import UserError
from megatron.basics.lock_file import lock_folder
from megatron.basics.progress import Progress
from megatron.finetuning.copies import KnownTexts
from megatron.finetuning.options import TaskOptions, TaskOutputOptions
from megatron.finetuning.preparation_report import NOT_LOOKED_FOR, remove_report, write_report
from megatron.finetuning.prepared_mixture import PreparedMixture
from megatron.finetuning.prepared_unit import (
    Settings,
    check_first_example,
    made_from,
    prepare_unit,
    prompts_of,
    read_fingerprints,
    require_no_fault,
)
from megatron.finetuning.unit_record import read_finished
from megatron.finetuning.units import HELD_OUT, TRAIN, VALIDATION, Unit, find_units
from megatron.tokenization.tokenizer import Tokenizer

SETTINGS_FILE = "settings.json"  # of an output folder; one without it is not ours
SETTINGS_FORMAT = 1


def prepare(options: TaskOptions, output: TaskOutputOptions, tokenizer: Tokenizer) -> PreparedMixture:
    """Prepare what is at hand of a mixture; what an earlier call has finished from the same input stays.

    Raises UserError, before anything is written, for a mixture, templates or data with faults, among them those that
    the first example of each split shows, and for an output folder with anything else in it; later for what single
    examples show, and where no prompt is left to train on. What is finished by then is kept, and data.yaml, that names
    it, is there at the end alone.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread for each worker, as --workers says
    folder = Path(str(output.output_folder))
    settings = Settings(
        folder,
        tokenizer,
        output.seed,
        output.max_input_length,
        output.max_target_length,
        output.strict,
        output.workers or len(os.sched_getaffinity(0)),
    )
    with lock_folder(folder, "--output-folder"):
        _check_folder(settings)
        preparation = PreparedMixture(find_units(options), settings)
        evaluated = preparation.units.of(VALIDATION, HELD_OUT)
        trained = preparation.units.of(TRAIN)
        begun = time.monotonic()
        _check_first_examples(preparation, trained + evaluated)
        _claim_folder(settings)
        _prepare_all(preparation, "evaluation", evaluated, None)
        if options.no_leak_check:
            print(f"warning: --no-leak-check: {NOT_LOOKED_FOR}", file=sys.stderr)
        else:
            preparation.known = KnownTexts([(unit.title, read_fingerprints(unit, folder)) for unit in evaluated])
        _prepare_all(preparation, "training", trained, preparation.known)
        preparation.seconds = time.monotonic() - begun
        write_report(preparation)
    return preparation


def _prepare_all(preparation: PreparedMixture, what: str, units: list[Unit], known: KnownTexts | None) -> None:
    """Prepare those that are not finished, with a bar over all of them."""
    settings = preparation.settings
    records = [read_finished(unit, settings.folder, made_from(unit, settings, known)) for unit in units]
    prompts = [prompts_of(unit) for unit in units]
    done = sum(number for number, record in zip(prompts, records, strict=True) if record is not None)
    with closing(Progress(what, sum(prompts), "prompt", unit_scale=True, already_done=done)) as bar:
        for unit, number, record in zip(units, prompts, records, strict=True):
            if record is None:
                record = prepare_unit(unit, settings, known, bar)
                preparation.rendered += number
                bar.write(f"{unit.title}: {record.prompts:,} prompts of {unit.examples:,} examples")
            else:
                require_no_fault(record, settings)
                preparation.kept_from_before += 1
            preparation.records.append(record)


def _check_first_examples(preparation: PreparedMixture, units: list[Unit]) -> None:
    """A column that no example has should not turn up after hours."""
    faults = [fault for unit in units for fault in check_first_example(unit, preparation.settings)]
    if faults:
        raise UserError(*dict.fromkeys(faults))


def _facts_of(settings: Settings) -> dict[str, Any]:
    """What all files of a folder have in common."""
    tokenizer = settings.tokenizer
    return {
        "format": SETTINGS_FORMAT,
        "tokenizer_type": tokenizer.tokenizer_type,
        "tokenizer_fingerprint": tokenizer.fingerprint,
    }


def _check_folder(settings: Settings) -> None:
    """Raise UserError where the output folder has something that is not of this preparation."""
    folder = settings.folder
    path = folder / SETTINGS_FILE
    others = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if not others:
        return
    if not path.is_file():
        shown = ", ".join(others[:3])
        raise UserError(f"--output-folder {folder} holds other files ({shown}); choose a new folder.")
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete the folder, or choose a new one.") from error
    if facts != _facts_of(settings):
        raise UserError(
            f"--output-folder {folder} was prepared with another tokenizer than {settings.tokenizer.source}; choose a "
            "new folder, or give the tokenizer that it was begun with."
        )


def _claim_folder(settings: Settings) -> None:
    """Mark the folder; remove what a call that was killed has left half written, and what leads to an earlier one."""
    remove_report(settings.folder)
    for left in settings.folder.rglob(".*.tmp"):
        left.unlink(missing_ok=True)
    write_json(settings.folder / SETTINGS_FILE, _facts_of(settings))
