from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics
from types import ModuleType

import pytest

from tests.unit.examples.loaded_script import load_script

SCRIPT = Path("examples/quickstart/stdlib_corpus.py")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(SCRIPT)


def test_docstrings_of_a_file_are_one_document_without_copies(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        '"""Module."""\nclass A:\n    """Shared."""\n    def f(self):\n        """Of f."""\n'
    )
    (tmp_path / "b.py").write_text('def g():\n    """Shared."""\nasync def h():\n    """Of h."""\n')
    (tmp_path / "c.py").write_text("not Python at all")
    (tmp_path / "d.py").write_bytes(b'"""caf\xe9"""')
    (tmp_path / "e.py").write_text('"""Shared."""')
    for left_out in ("test", "site-packages"):
        (tmp_path / left_out).mkdir()
        (tmp_path / left_out / "f.py").write_text('"""Left out."""')
    found = dict(script.documents(tmp_path))
    from_files = {name: text for name, text in found.items() if not name.startswith("topics/")}
    assert from_files == {"a.py": "Module.\n\nShared.\n\nOf f.", "b.py": "Of h."}
    assert {name.removeprefix("topics/") for name in found.keys() - from_files.keys()} == set(topics)


def test_split_is_a_function_of_the_name(script: ModuleType) -> None:
    chosen = [script.is_validation(f"file{number}.py", 10) for number in range(5000)]
    assert chosen == [script.is_validation(f"file{number}.py", 10) for number in range(5000)]
    assert 400 < sum(chosen) < 600


def test_corpus_of_this_python(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--output-folder", str(tmp_path / "corpus")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": "."}, capture_output=True)
    parts = {}
    for part in ("train", "valid"):
        lines = (tmp_path / "corpus" / f"{part}.jsonl").read_text("utf-8").splitlines()
        parts[part] = {row["source"]: row["text"] for row in map(json.loads, lines)}
        assert len(parts[part]) == len(lines)
        assert all(text.strip() for text in parts[part].values())
    assert not parts["train"].keys() & parts["valid"].keys()
    assert sum(len(text) for text in parts["train"].values()) > 1_000_000
    assert len(parts["valid"]) > 5
    assert sorted(path.name for path in (tmp_path / "corpus").iterdir()) == ["train.jsonl", "valid.jsonl"]
