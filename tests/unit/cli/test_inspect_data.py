"""tools/inspect_data.py: the rows that training gets, from flags or from a run's record, without torch."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from megatron.basics.errors import UserError
from megatron.cli import inspect_data
from megatron.cli.chosen_cell import USUAL_OBJECTIVES
from megatron.cli.run_config import parse_pretrain
from megatron.cli.terminal_style import ESCAPE, Style
from megatron.cli.wire_rows import build_rows
from megatron.tokenization.tokenizer import load_tokenizer
from tests.unit.data.token_file_samples import write_token_file

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory, sentencepiece_model: Path) -> list[str]:
    """Flags that name a corpus of forty documents of 3 to 42 tokens and its tokenizer."""
    prefix = tmp_path_factory.mktemp("inspect") / "corpus"
    generator = np.random.default_rng(0)
    write_token_file(prefix, [[generator.integers(300, 900, length).tolist()] for length in range(3, 43)])
    return ["--data-path", str(prefix), "--tokenizer-model", str(sentencepiece_model), "--split", "80,20,0"]


def output_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    inspect_data.main(arguments)
    return capsys.readouterr().out


PACKED = ["--pack-documents", "--seq-length", "24", "--seed", "7"]


@pytest.mark.parametrize("architecture", ["causal_decoder", "prefix_decoder", "encoder_decoder"])
def test_the_tokens_shown_are_those_that_training_gets(
    architecture: str, flags: list[str], sentencepiece_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output_of([*flags, *PACKED, "--architecture", architecture, "--samples", "3", "3"], capsys)
    objective = USUAL_OBJECTIVES[architecture]
    config = parse_pretrain(
        [*flags, *PACKED, "--train-iters", "1", "--eval-iters", "0"],
        architecture=architecture,
        default_objective=objective,
        legal_objectives=[objective],
    )
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model), [])
    row = build_rows(config, tokenizer, ("train",))["train"][3]
    streams = [row.encoder.tokens, row.tokens] if row.encoder else [row.tokens]
    pieces = [tokenizer.piece(int(token)) for stream in streams for token in stream]
    expected = [piece if len(piece) <= 14 else f"{piece[:12]}.." for piece in pieces]
    shown = [piece for line in text.splitlines() if line.startswith("token ") for piece in line.split()[1:]]
    assert shown == expected
    assert f"train sample 3, {architecture}:{objective}: " in text
    share = f"{int((row.loss_mask > 0).sum())} of {len(row.loss_mask)} labels with loss"
    assert text.count(share) == 2  # of the row, and of the one sample


def test_shares_are_over_all_samples(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = output_of([*flags, *PACKED, "--samples", "10", "29", "--rows", "0"], capsys).splitlines()
    (line,) = lines
    assert line.startswith("samples 10 to 29: ") and " of 480 positions filled (" in line
    assert float(re.search(r"filled \(([\d.]+) %", line)[1]) > 95  # type: ignore[index]
    plain = output_of([*flags, "--seq-length", "24", "--samples", "20", "--rows", "0"], capsys)
    assert "480 of 480 positions filled (100.0 %), 480 of 480 labels with loss (100.0 %)" in plain


def test_a_run_shows_what_it_was_fed_and_flags_win_over_its_record(
    flags: list[str], sentencepiece_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*flags, *PACKED, "--mean-noise-span-length", "2"]
    config = parse_pretrain(
        [*arguments, "--objective", "span_corruption", "--train-iters", "1", "--eval-iters", "0"],
        architecture="prefix_decoder",
        default_objective="prefix_lm",
        legal_objectives=["span_corruption"],
    )
    record = {"options": config.as_dict(), "tokenizer": {"model": str(sentencepiece_model), "vocabulary_size": 1000}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    objective = ["--architecture", "prefix_decoder", "--objective", "span_corruption"]
    load = ["--load", str(tmp_path)]
    assert output_of(load, capsys) == output_of([*arguments, *objective], capsys)
    assert output_of([*load, "--seed", "8"], capsys) == output_of([*arguments, *objective, "--seed", "8"], capsys)
    assert output_of([*load, "--seed", "8"], capsys) != output_of(load, capsys)


def test_what_is_given_takes_the_place_of_what_belonged_together(
    flags: list[str], sentencepiece_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run had other ways to name its text, an objective with settings and a rule for documents."""
    _, corpus, *tokenizer = flags[:4]
    run_flags = ["--train-data-path", corpus, "--valid-data-path", corpus, *tokenizer, "--seq-length", "24"]
    objective = ["--objective", "span_corruption", "--noise-density", "0.3"]
    config = parse_pretrain(
        [*run_flags, *objective, "--train-iters", "1", "--eval-iters", "0", "--decoder-seq-length", "12"],
        architecture="encoder_decoder",
        default_objective="span_corruption",
        legal_objectives=["span_corruption"],
    )
    record = {"options": config.as_dict(), "tokenizer": {"model": str(sentencepiece_model), "vocabulary_size": 1000}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    load, decoder = ["--load", str(tmp_path)], ["--architecture", "prefix_decoder", "--objective", "prefix_lm"]
    assert output_of([*load, *decoder], capsys) == output_of([*run_flags, *decoder], capsys)
    other = ["--architecture", "encoder_decoder", *objective, *tokenizer, "--seq-length", "24"]
    expected = output_of(["--data-path", corpus, *other, "--decoder-seq-length", "12"], capsys)
    assert output_of([*load, "--data-path", corpus], capsys) == expected


def test_torch_is_not_needed_and_a_pipe_gets_no_colour(flags: list[str]) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from megatron.cli.inspect_data import main\n"
        f"main({[*flags, *PACKED]!r})"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "samples 0 to 1: " in done.stdout and not ESCAPE.search(done.stdout)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Style.of(Terminal()).is_coloured and not Style.of(io.StringIO()).is_coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Style.of(Terminal()).is_coloured
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("TERM", "dumb")
    assert not Style.of(Terminal()).is_coloured


def test_the_usual_objectives_are_those_of_the_pretrain_scripts() -> None:
    found = {}
    for script in ROOT.glob("pretrain_*.py"):
        architecture, objective = re.search(
            r'main\(architecture="(\w+)", objective="(\w+)"\)', script.read_text()
        ).groups()  # type: ignore[union-attr]
        found[architecture] = objective
    assert found == USUAL_OBJECTIVES


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--samples 5 3", "--samples 5 3 holds no sample; use e.g. 2, or 100 103."),
        ("--samples 1 2 3", "--samples 1 2 3 is neither a number nor FIRST LAST"),
        ("--architecture encoder_decoder --objective full_lm", "--objective full_lm is not one of encoder_decoder; it"),
        ("--architecture encoder", "--architecture encoder is not known"),
        ("--of test", "--of test: the data flags leave it no text; change --split or the paths."),
        ("--load /nowhere", "--load /nowhere holds no run.json; give the folder that a run was saved to."),
        ("--pack-documents --reset-attention-mask", "--reset-attention-mask has no effect with --pack-documents"),
        ("--noise-density 0.3", "--noise-density has no effect with --objective full_lm"),
        ("--hiden-size 3", "--hiden-size is not a known flag; did you mean --hidden-size?"),
    ],
)
def test_wrong_use_is_answered_by_a_sentence(words: str, sentence: str, flags: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        inspect_data.main([*flags, "--seq-length", "16", *words.split()])
    assert len(caught.value.faults) == 1 and caught.value.faults[0].startswith(sentence)
