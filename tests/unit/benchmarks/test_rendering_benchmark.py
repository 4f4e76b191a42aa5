"""The benchmark of rendering finds data sets and compares equal work."""

from pathlib import Path

import datasets
import pytest

from benchmarks import rendering

TEMPLATES = """dataset: some
subset: set
templates:
  one: !Template
    {id: one, name: one, jinja: "{{ a }}? ||| {{ b }}", answer_choices: "{{ b }} ||| z", reference: "",
     metadata: !TemplateMetadata {original_task: true, choices_in_prompt: false, metrics: []}}
"""


def test_all_ways_make_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "templates" / "some" / "set").mkdir(parents=True)
    (tmp_path / "templates" / "some" / "set" / "templates.yaml").write_text(TEMPLATES)
    rows = datasets.Dataset.from_dict({"a": ["x|||y", "", "z"], "b": ["1", "2", ""]})
    rows.save_to_disk(str(tmp_path / "data" / "some" / "set" / "none" / "validation"))
    arguments = ["--templates", str(tmp_path / "templates"), "--data", str(tmp_path / "data"), "--repeats", "1"]
    monkeypatch.setattr("sys.argv", ["rendering.py", *arguments])
    assert rendering.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("some/set") and lines[-1].startswith("all")
    assert all("3 rendered,     1 left out, 0 differ" in line for line in lines[-2:])
    monkeypatch.setattr("sys.argv", ["rendering.py", *arguments, "--split", "test"])
    assert rendering.main() == 2
