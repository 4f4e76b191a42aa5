"""The program of `make gpu-check`, tried without a GPU: its record, its time limits, its parts at toy size."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu import moving, training
from benchmarks.gpu.report import Report
from benchmarks.gpu.toy_corpus import DOCUMENT, WORDS, write_corpus, write_vocabulary
from benchmarks.gpu.workplace import ROOT, Line, PartFailed, Workplace
from megatron.data.token_file import open_token_file

FACTS = {"device": "NVIDIA H200", "command": "gpu_check.py", "commit": "abc", "versions": {"torch": "2.11"}}


def place_in(folder: Path, seconds: float = 60.0) -> tuple[Workplace, list[Line]]:
    said: list[Line] = []
    deadline = time.monotonic() + seconds
    return Workplace(device="cpu", quick=True, folder=folder, deadline=deadline, say=said.append), said


def run_check(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benchmarks/gpu_check.py", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_one_sentence_and_nothing_written(tmp_path: Path) -> None:
    ended = run_check("--results", str(tmp_path / "results"))
    assert ended.returncode == 2
    assert len(ended.stdout.splitlines()) == 1 and "no NVIDIA GPU" in ended.stdout
    assert not (tmp_path / "results").exists()


def test_a_record_keeps_the_parts_of_an_earlier_check(tmp_path: Path) -> None:
    first = Report(tmp_path, FACTS, date="2026-01-02")
    first.begin("build")
    first.add("build", Line(check="compiles", outcome="3 | 4 sources"))
    first.end("build", 2.0)
    second = Report(tmp_path, FACTS, date="2026-01-02")
    second.begin("train")
    second.add("train", Line(check="learns", outcome="no", passed=False))
    second.end("train", 1.0)
    record = json.loads((tmp_path / "nvidia-h200-2026-01-02.json").read_text())
    assert {name: part["passed"] for name, part in record["parts"].items()} == {"build": True, "train": False}
    table = (tmp_path / "nvidia-h200-2026-01-02.md").read_text()
    assert "| build | compiles | 3 \\| 4 sources | ok |" in table
    assert "| train | learns | no | **failed** |" in table
    assert not second.has_passed(["build", "train"]) and second.has_passed(["build"])


def test_a_part_that_says_nothing_has_not_passed(tmp_path: Path) -> None:
    report = Report(tmp_path, FACTS, date="2026-01-02")
    report.begin("step")
    report.end("step", 1.0)
    assert not report.has_passed(["step"])
    assert "it was cut off" in report.table()


def test_a_command_is_killed_with_its_children_when_time_is_over(tmp_path: Path) -> None:
    place, _ = place_in(tmp_path, seconds=1.0)
    script = "import subprocess, sys; print('begun', flush=True); subprocess.run(['sleep', '60'])"
    started = time.monotonic()
    with pytest.raises(PartFailed, match="took longer than this part may: begun"):
        place.python("-c", script, name="sleeper")
    assert time.monotonic() - started < 20.0


def test_a_failing_command_is_told_with_its_last_words(tmp_path: Path) -> None:
    place, _ = place_in(tmp_path)
    with pytest.raises(PartFailed, match=r"broken ended with exit code 3: one / two"):
        place.python("-c", "print('one'); print(); print('two'); raise SystemExit(3)", name="broken")


def test_a_broken_part_becomes_a_line_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"one": (f"{__name__}:broken_part", 1.0), "two": (f"{__name__}:good_part", 1.0)}
    monkeypatch.setattr(gpu_check, "PARTS", parts)
    report = Report(tmp_path, FACTS, date="2026-01-02")
    for part in parts:
        gpu_check.run_part(part, report, "cpu", tmp_path / part, (9.0, time.monotonic() + 9.0), quick=True)
    assert [part["passed"] for part in report.parts.values()] == [False, True]
    assert "ZeroDivisionError" in report.parts["one"]["lines"][0]["outcome"]
    gpu_check.run_part("two", report, "cpu", tmp_path / "two", (9.0, time.monotonic() - 1.0), quick=True)
    assert "no time was left" in report.parts["two"]["lines"][0]["outcome"]


def broken_part(place: Workplace) -> None:
    print(1 // 0)


def good_part(place: Workplace) -> None:
    place.say(Line(check="all", outcome="well"))


def test_corpus_is_a_token_file_that_can_be_learnt(tmp_path: Path) -> None:
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    prefix = write_corpus(tmp_path / "corpus", vocabulary, 5_000)
    tokens = open_token_file(str(prefix), vocabulary_size=WORDS + 1)
    *document, end = tokens.read(0, DOCUMENT).tolist()
    assert end == WORDS
    steps = {(after - 5 * before - 1) % WORDS for before, after in itertools.pairwise(document)}
    assert steps == {0, 1, 2, 3}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_train_and_checkpoint_parts_at_toy_size(tmp_path: Path) -> None:
    """About ten starts of pretrain_gpt.py."""
    for part in (training.train, moving.move):
        (tmp_path / part.__name__).mkdir()
        place, said = place_in(tmp_path / part.__name__, seconds=400.0)
        part(place)
        assert len(said) >= 3 and all(line.passed for line in said), said
    bits = [line for line in said if "bitwise" in line.check]
    assert len(bits) == 2 and all(line.figures["tensors"] > 20 for line in bits)
