from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from megatron.basics.errors import UserError
from tests.unit.examples.loaded_script import load_script

LONG = "There is a long story about {} that nobody in the village has forgotten."


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(Path("examples/multitask_offline/task_corpus.py"))


def story(*what: str) -> dict[str, object]:
    return {name: LONG.format(one) for name, one in zip(("passage", "question"), what, strict=False)}


def write_data(folder: Path) -> Path:
    """Two data sets to train on and a held-out one; the mixture."""
    splits: dict[str, list[dict[str, object]]] = {
        "tales/train": [
            story("a hen"),
            story("a cow", "an owl"),
            story("a hen"),
            {"passage": "Too short.", "label": 1},
        ],
        "tales/validation": [{"passage": f"  {LONG.format('A BAT').upper()} "}],
        "fables/train": [story("a bat"), story("a goat"), story("a wolf"), story("a fox"), story("a cow")],
        "fables/validation": [{"choices": [LONG.format("a goat"), LONG.format("a crow")]}],
        "riddles/validation": [story("a wolf", "a bear")],
    }
    for name, examples in splits.items():
        path = folder / "data" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(example) + "\n" for example in examples))
    (folder / "held_out.yaml").write_text(
        "tasks:\n"
        "  - {name: riddle, path: riddles, split: validation, prompts: 1, random: 1/2}\n"
        "  - {name: proverb, path: proverbs, split: test, prompts: 1, random: 1/2}\n"
    )
    mixture = folder / "mixture.yaml"
    mixture.write_text("held_out: held_out.yaml\ndata_sets: [{path: tales}, {path: fables}]\n")
    return mixture


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, mixture: Path) -> list[dict[str, str]]:
    output = mixture.parent / "corpus.jsonl"
    words = ["--mixture", mixture, "--data-dir", mixture.parent / "data", "--output", output]
    monkeypatch.setattr("sys.argv", ["task_corpus.py", *map(str, words)])
    script.main()
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_nothing_that_any_split_of_evaluation_says_is_pretrained_on(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In another spelling, in another data set's split, among choices, in a held-out task; and each document once."""
    found = run(script, monkeypatch, write_data(tmp_path))
    expected = [("tales", "a hen"), ("tales", "a cow", "an owl"), ("fables", "a fox"), ("fables", "a cow")]
    assert found == [{"text": "\n".join(map(LONG.format, what)), "source": source} for source, *what in expected]
    assert "not looked for in training: " in (told := capsys.readouterr().err) and "nothing of proverbs" in told


def test_a_document_has_the_choices_and_no_labels(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture = write_data(tmp_path)
    example = {
        "id": "7-980",
        "question": LONG.format("a bat"),  # evaluation has this text
        "more": LONG.format("a toad"),
        "choices": {"text": ["a pond", "well"], "label": ["A", "B"]},
        "answerKey": "B",
    }
    (tmp_path / "data/tales/train.jsonl").write_text(json.dumps(example) + "\n")
    assert run(script, monkeypatch, mixture)[0]["text"] == f"{LONG.format('a toad')}\na pond\nwell"


def test_a_mixture_without_texts_writes_nothing(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture = write_data(tmp_path)
    mixture.write_text("held_out: held_out.yaml\ndata_sets: [{path: tales}]\n")
    (tmp_path / "data/tales/train.jsonl").write_text('{"passage": "Too short."}\n')
    with pytest.raises(UserError, match=r"--data-dir .* has no text of .*mixture.yaml; check both"):
        run(script, monkeypatch, mixture)
    assert not (tmp_path / "corpus.jsonl").exists()
