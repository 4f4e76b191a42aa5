"""The same command once more: after a kill, an error, or a change of what the files are made from."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from task_folders import ANIMALS, animals, files_of, pairs_of, run, sums, write_lines

from megatron.basics.errors import UserError
from megatron.basics.lock_file import lock_folder
from megatron.finetuning import preparation
from megatron.finetuning.copies import FINGERPRINTS, KnownTexts
from megatron.finetuning.prepared_unit import Settings, made_from
from megatron.finetuning.units import TRAIN, Unit
from megatron.prompting.split_files import JsonLines
from megatron.prompting.template import Template

DYING = """
import os, signal, sys
from megatron.cli.prepare_tasks import main
from megatron.finetuning import prepared_unit

write, prepared_unit.EXAMPLES_AT_ONCE = prepared_unit._UnitWriter.write, 8
calls = []

def dying(writer, examples):
    write(writer, examples)
    calls.append(1)
    if len(calls) == 9:  # 2 of evaluation, 5 of the first data set, then in the middle of the second
        os.kill(os.getpid(), signal.SIGKILL)

prepared_unit._UnitWriter.write = dying
main(sys.argv[1:])
"""


def test_after_a_kill_the_same_command_makes_the_same_bytes(tasks: dict[str, str]) -> None:
    words = [word for pair in tasks.items() for word in pair]
    killed = subprocess.run([sys.executable, "-c", DYING, *words], env={**os.environ, "PYTHONPATH": "."}, timeout=60)
    assert killed.returncode == -9
    out = Path(tasks["--output-folder"])
    assert (out / "train/animals.prepared.json").exists() and not (out / "train/sums/plain_inputs.bin").exists()
    assert [*out.rglob("*.tmp")]
    before = (out / "train/animals_inputs.bin").stat().st_ino
    run(tasks)
    assert (out / "train/animals_inputs.bin").stat().st_ino == before  # what was finished is not made again
    again = run({**tasks, "--output-folder": f"{tasks['--output-folder']}_whole"})
    assert files_of(out) == files_of(again)


def test_what_has_changed_is_prepared_again(tasks: dict[str, str]) -> None:
    out = run(tasks)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*_inputs.bin")}
    write_lines(Path(tasks["--data-dir"]) / "sums/plain/train.jsonl", sums(0, 26))
    run(tasks)
    changed = {path.relative_to(out).as_posix() for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {"train/sums/plain_inputs.bin"}
    assert len(pairs_of(out / "train/sums/plain", tasks["--tokenizer-model"])) == 26


def test_the_report_tells_what_is_so_now(tasks: dict[str, str]) -> None:
    """Of what no file depends on: sizes as published, and where data that are the same lie."""
    run(tasks)
    mixture, data = Path(tasks["--mixture"]), Path(tasks["--data-dir"])
    mixture.write_text(mixture.read_text().replace("examples: 40", "examples: 41"))
    data = data.rename(data.with_name("moved"))
    out = run({**tasks, "--data-dir": str(data)})
    assert "- animals has 40 examples here and 41 as published." in (out / "report.md").read_text()
    found = json.loads((out / "report.json").read_text())["data_sets"]
    assert {Path(unit["source"]).relative_to(data).parts[0] for unit in found} == {"animals", "sums", "riddles"}


def test_what_an_error_leaves_is_not_trained_on(tasks: dict[str, str]) -> None:
    """Neither old files under a data.yaml that says that they are whole, nor new inputs beside old targets."""
    out = run(tasks)
    data = Path(tasks["--data-dir"]) / "sums/plain/train.jsonl"
    write_lines(data, [*sums(0, 24), {"text": "no result"}])
    with pytest.raises(UserError, match=r"example 25 of .* lacks result"):
        run(tasks)
    assert not [path for path in out.iterdir() if path.name in ("data.yaml", "report.md", "report.json")]
    assert [*out.glob("train/animals*")] and not [*out.glob("train/sums/plain*")]
    write_lines(data, sums(0, 24))
    assert (run(tasks) / "data.yaml").exists()


def test_the_report_is_written_before_another_call_may_begin(
    tasks: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def write_report(_: Any) -> None:
        with pytest.raises(UserError), lock_folder(Path(tasks["--output-folder"]), "--output-folder"):
            pass
        tried.append(1)

    monkeypatch.setattr(preparation, "write_report", write_report)
    run(tasks)
    assert tried


def test_each_thing_that_files_are_made_from_makes_others(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", animals(0, 3))
    template = Template("animals", "ask", "{{ question }} ||| x", None, True, False, (), "ask", "")
    unit = Unit(TRAIN, "animals", "animals", "train", (template,), JsonLines(tmp_path / "train.jsonl"))
    tokenizer: Any = SimpleNamespace(fingerprint="one")
    settings = Settings(tmp_path, tokenizer, 1, 1024, 256, False, 1)
    texts = np.arange(3, dtype=FINGERPRINTS)
    known = KnownTexts([("validation animals", texts)])
    now = made_from(unit, settings, known)
    assert made_from(unit, dataclasses.replace(settings, workers=2, strict=True), known) == now
    other: Any = SimpleNamespace(fingerprint="other")
    changed = [
        *(
            made_from(unit, dataclasses.replace(settings, **change), known)
            for change in ({"tokenizer": other}, {"seed": 2}, {"max_input_length": 9}, {"max_target_length": 9})
        ),
        made_from(dataclasses.replace(unit, cap=2), settings, known),
        *(
            made_from(dataclasses.replace(unit, templates=templates), settings, known)
            for templates in ((), (template, template), (dataclasses.replace(template, jinja="{{ id }} ||| x"),))
        ),
        made_from(unit, settings, None),
        made_from(unit, settings, KnownTexts([("validation animals", texts[:2])])),
        made_from(unit, settings, KnownTexts([("held-out animals", texts)])),
    ]
    write_lines(tmp_path / "train.jsonl", [*animals(0, 2), {**animals(2, 1)[0], "question": f"Is it a {ANIMALS[0]}"}])
    changed.append(made_from(unit, settings, known))
    assert len({now, *changed}) == len(changed) + 1
