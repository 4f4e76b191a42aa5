from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.data.options import TOKENIZER_TYPES
from megatron.tokenization.tokenizer import TOKENIZERS


def command(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "tools/preprocess_data.py", *(flag.replace("{}", str(folder)) for flag in flags)]
    environment = {**os.environ, "PYTHONPATH": "."}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60)


def test_flag_offers_the_kinds_that_exist() -> None:
    assert tuple(TOKENIZERS) == TOKENIZER_TYPES
    assert all(TOKENIZERS[kind].tokenizer_type == kind for kind in TOKENIZERS)


@pytest.mark.parametrize(
    ("flags", "sentences"),
    [
        (["--input", "{}/no.jsonl"], ["{}/no.jsonl cannot be read: No such file or directory."]),
        (["--input", "{}/in.jsonl", "--tokenizer-model", "{}/no.model"], ["{}/no.model cannot be read"]),
        (["--input", "{}/in.jsonl", "--tokenizer-model", "{}/in.jsonl"], ["is not a SentencePiece model"]),
        (["--input", "{}/in.jsonl", "--tokenizer-type", "HuggingFaceTokenizer"], ["is not a folder"]),
        (["--input", "{}/in.jsonl", "--workers", "0"], ["--workers 0 is too small; use 1 or more."]),
        (["--input", "{}/in.jsonl", "--json-keys", "body"], ['holds no document that could be used', 'no key "body"']),
        (["--input", "{}/in.jsonl", "--strict"], ['in.jsonl:2: not JSON']),
        (["--input", "{}/in.jsonl", "--output-prefix", "{}/in.jsonl/out"], ["a part of its path is a file"]),
        (["--input", "{}/in.jsonl", "--output-prefix", "{}/" + "o" * 300], ["the name is too long"]),
    ],
)  # fmt: skip
def test_bad_use_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, sentencepiece_model: Path, flags: list[str], sentences: list[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "good"}\n{\n')
    defaults = {"--tokenizer-model": str(sentencepiece_model), "--output-prefix": "{}/out"}
    flags = [*flags, *(word for flag, value in defaults.items() if flag not in flags for word in (flag, value))]
    outcome = command(tmp_path, *flags)
    assert outcome.returncode == 2, outcome.stderr
    errors = [line for line in outcome.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1 and errors[0].startswith("error: ")
    assert all(sentence.replace("{}", str(tmp_path)) in outcome.stderr for sentence in sentences)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_all_missing_flags_at_once(tmp_path: Path) -> None:
    outcome = command(tmp_path)
    assert outcome.returncode == 2
    assert [line.split()[1] for line in outcome.stderr.splitlines()] == [
        "--input",
        "--output-prefix",
        "--tokenizer-model",
    ]
