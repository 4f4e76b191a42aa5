from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import sentencepiece

TEXTS = list(topics.values())[:40]


def command(*flags: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "tools/train_tokenizer.py", *flags]
    environment = {**os.environ, "PYTHONPATH": "."}
    return subprocess.run(words, input=stdin, capture_output=True, env=environment, timeout=120)


def test_json_packed_text_and_standard_input_give_one_vocabulary(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"body": text}) + "\n" for text in TEXTS[:20]).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("\n".join(TEXTS[20:30]).encode()))
    inputs = ["--input", str(tmp_path / "a.jsonl"), str(tmp_path / "b.txt.gz"), "-", "--json-keys", "body"]
    prefix = tmp_path / "new" / "v"
    outcome = command(
        *inputs, "--output-prefix", str(prefix), "--vocab-size", "700", "--model-type", "bpe",
        stdin="\n".join(TEXTS[30:]).encode(),
    )  # fmt: skip
    assert (outcome.returncode, outcome.stderr) == (0, b"")
    processor = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    assert processor.get_piece_size() == 700
    assert len(Path(f"{prefix}.vocab").read_text("utf-8").splitlines()) >= 700
    assert sorted(path.name for path in prefix.parent.iterdir()) == ["v.model", "v.vocab"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--input", "{}/no.txt"], "{}/no.txt cannot be read: No such file or directory."),
        (["--input", "{}/empty.txt"], "--input holds no text to learn from, so nothing was written."),
        (["--input", "{}/short.txt"], "--vocab-size 32000 is too large for this text; use "),
        (["--input", "{}/short.txt", "--vocab-size", "100"], "--vocab-size 100 is too small; use 363 or more."),
        (["--input", "{}/short.txt", "--model-type", "unigramm"], "did you mean unigram?"),
        (["--input", "{}/short.txt", "--vocab-syze", "400"], "did you mean --vocab-size?"),
        ([], "--input is missing"),
    ],
)
def test_bad_use_is_one_sentence_and_leaves_nothing(tmp_path: Path, flags: list[str], sentence: str) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_text("a few words")
    here = str(tmp_path)
    outcome = command(*(flag.replace("{}", here) for flag in flags), "--output-prefix", str(tmp_path / "v"))
    told = outcome.stderr.decode()
    assert outcome.returncode == 2
    assert sentence.replace("{}", here) in told
    assert told.startswith("error: ") and told.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "short.txt"]


@pytest.mark.parametrize("tool", ["train_tokenizer", "preprocess_data"])
def test_help_comes_before_heavy_imports(tool: str) -> None:
    program = (
        f"import sys; sys.argv = ['{tool}', '--help']\n"
        "import runpy\n"
        f"try: runpy.run_path('tools/{tool}.py', run_name='__main__')\n"
        "except SystemExit as done: assert not done.code\n"
        "heavy = {'numpy', 'torch', 'sentencepiece', 'tokenizers', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": "."}
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=True)
    assert b"--input FILE" in shown.stdout
    assert time.monotonic() - started < 5  # a second on a quiet machine
