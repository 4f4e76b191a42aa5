"""The benchmark of packed examples, at toy size: what it prints agrees with what it packs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import packed_examples
from megatron.prompting.mixture import read_mixture

ROOMS = ("rows of 1280", "rows of 1024 and 256")


def test_every_figure_of_every_room(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told = {"--examples": "4000", "--data-sets": "3", "--far": "40", "--rows": "20"}
    monkeypatch.setattr("sys.argv", ["packed_examples", *(word for pair in told.items() for word in pair)])
    packed_examples.main()
    printed = capsys.readouterr().out
    for name in ROOMS:
        assert re.search(
            rf"^{name}: [\d.]+ s to the first row, [\d.]+ s on to row 40, [\d.]+ GB at most$", printed, re.M
        )
        assert re.search(rf"^{name}: [\d.]+ s to pack 4,000 examples by (plain Python|csrc/packing)$", printed, re.M)
    (full,) = re.findall(r"^rows of 1280: ([\d.]+)% full, [\d,]+ rows/s$", printed, re.M)
    inputs, targets = re.findall(r"^rows of 1024 and 256: ([\d.]+)% and ([\d.]+)% full, [\d,]+ rows/s$", printed, re.M)[
        0
    ]
    assert 95 < float(full) <= 100 and 95 < float(inputs) <= 100 and 20 < float(targets) < 50


def test_it_is_t0s_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []

    def write(folder: Path, examples: int, data_sets: int, target_length: int) -> list[str]:
        asked.append((examples, data_sets, target_length))
        raise KeyboardInterrupt

    monkeypatch.setattr(packed_examples, "write_data_sets", write)
    monkeypatch.setattr("sys.argv", ["packed_examples"])
    with pytest.raises(KeyboardInterrupt):
        packed_examples.main()
    assert asked == [(17_277_798, len(read_mixture("t0").data_sets), 256)]


def test_rows_with_less_room_for_targets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told = {"--examples": "2000", "--data-sets": "2", "--far": "40", "--rows": "10", "--target-length": "100"}
    monkeypatch.setattr("sys.argv", ["packed_examples", *(word for pair in told.items() for word in pair)])
    packed_examples.main()
    printed = capsys.readouterr().out
    assert set(re.findall(r"^(rows of .*?):", printed, re.M)) == {"rows of 1124", "rows of 1024 and 100"}
