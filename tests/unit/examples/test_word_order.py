from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.examples.loaded_script import load_script

SCRIPT = Path("examples/quickstart/word_order.py")
PROSE = "the cat that sat on the mat was not the dog that ate all of the very old bread we had"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(SCRIPT)


def run(source: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--input", source, "--output-folder", folder],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
    )


def test_choices_are_the_words_that_follow_and_three_other_orders_of_them(tmp_path: Path) -> None:
    source = tmp_path / "text.jsonl"
    source.write_text(
        json.dumps({"text": f"Short.\n\n{PROSE} {PROSE} {PROSE}\n\nx = 1 \u2028 2 " * 2}, ensure_ascii=False) + "\n"
    )
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        assert run(source, folder).returncode == 0
        made.append((folder / "validation.jsonl").read_text())
    assert made[0] == made[1]
    text = " ".join(f"{PROSE} {PROSE} {PROSE}".split())
    examples = [json.loads(line) for line in made[0].splitlines()]
    assert examples
    for example in examples:
        right = example["choices"][example["answer"]]
        assert f"{example['context']} {right}" in text
        assert len(set(example["choices"])) == 4
        assert len({tuple(sorted(choice.split())) for choice in example["choices"]}) == 1


def test_code_and_words_without_other_orders_are_left_out(script: ModuleType) -> None:
    assert not list(script.pieces("x = 1\n" * 40))
    assert len(list(script.pieces(PROSE * 2))) == 1
    assert script.example(["word"] * 24) is None


@pytest.mark.parametrize(
    ("content", "said"), [("{}\n", "not JSONL"), ("[]\n", "not JSONL"), ('{"text": "Short."}\n', "no paragraph")]
)
def test_text_without_examples_is_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "text.jsonl").write_text(content)
    done = run(tmp_path / "text.jsonl", tmp_path / "out")
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
