"""What tools/evaluate.py refuses, in one sentence each, before it imports a library."""

import sys

import pytest

from megatron.basics.errors import UserError
from megatron.cli.evaluate import _is_ours, main


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--tasks", "copa"], "--load is missing"),
        (["--load", "RUN"], "--tasks is missing"),
        (["--load", "RUN", "--hf", "RUN", "--tasks", "copa"], "--load and --hf exclude each other"),
        (["--load", "nowhere", "--tasks", "copa"], "--load nowhere is not a folder"),
        (["--hf", "nowhere", "--tasks", "copa"], "--hf nowhere is not a folder"),
        (["--hf", "RUN", "--tasks", "copa"], "holds no config.json"),
        (["--hf", "RUN", "--tasks", "copa", "--load-iteration", "3"], "--load-iteration has no effect with --hf"),
        (["--load", "RUN", "--tasks", "copa", "--data-dir", "nowhere"], "--data-dir nowhere is not a folder"),
        (["--load", "RUN", "--tasks", "copa", "--include-path", "nowhere"], "--include-path nowhere is not a folder"),
        (["--load", "RUN", "--tasks", "copa", "--limit", "0"], "--limit 0"),
        (["--load", "RUN", "--tasks", "copa", "--output-path", __file__], "--output-path .* is not a folder"),
        (["--load", "RUN", "--eai-eval", "--num-fewshot", "5"], "excludes --eai-eval, which is zero-shot"),
        (["--load", "RUN", "--t0-eval"], "--templates is missing; --t0-eval takes a folder of templates"),
        (["--load", "RUN", "--t0-eval", "--templates", "nowhere"], "--templates nowhere is not a folder"),
        (["--load", "RUN", "--tasks", "copa", "--t0-tasks", "rte"], "--t0-tasks has no effect without --t0-eval"),
        (["--load", "RUN", "--t0-eval", "--templates", "RUN", "--num-fewshot", "5"], "no effect on --t0-eval"),
    ],
)
def test_wrong_settings_are_told(words, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        main([str(tmp_path) if word == "RUN" else word for word in words])


def test_an_exported_folder_takes_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="--hf takes one process"):
        main(["--hf", str(tmp_path), "--tasks", "copa"])


def test_a_folder_that_needs_code_of_strangers_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModelForCausalLM": "modeling_triarch.Model"}}')
    (tmp_path / "modeling_triarch.py").write_text("")
    with pytest.raises(UserError, match="needs code of its own, and not the file that this version exports"):
        main(["--hf", str(tmp_path), "--tasks", "copa"])


def test_code_of_strangers_is_not_trusted(tmp_path, monkeypatch):
    own = tmp_path / "own" / "modeling_triarch.py"
    own.parent.mkdir()
    own.write_text("ours = 1\n")
    monkeypatch.setattr(sys.modules["megatron.cli.evaluate"], "OWN_MODEL_FILE", own)
    folder = tmp_path / "export"
    folder.mkdir()
    assert not _is_ours(folder)
    (folder / own.name).write_text(own.read_text())
    assert _is_ours(folder)
    (folder / "tokenization.py").write_text("")
    assert not _is_ours(folder)
    (folder / "tokenization.py").unlink()
    (folder / own.name).write_text("ours = 2\n")
    assert not _is_ours(folder)
