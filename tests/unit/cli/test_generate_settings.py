"""What tools/generate.py refuses by the record of a checkpoint alone; no tensor is read."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.basics.errors import UserError
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.manifest import Manifest
from megatron.cli import generate
from megatron.cli.run_config import parse_pretrain
from megatron.cli.written_texts import WrittenTexts
from megatron.evaluation.options import GenerationOptions
from megatron.evaluation.stop_texts import StopTexts
from tests.oracles.one_process_model import one_process_grid

PIECES = [" a", "b", " ", "ab", "é", ""]
WIDTHS = ["--num-attention-heads", "6", "--hidden-size", "192"]


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (["--ffn-hidden-size", "512", "--make-vocab-size-divisible-by", "96"], "a feed-forward layer of 512"),
        (["--ffn-hidden-size", "768"], "a vocabulary padded to a multiple of 128"),
        (["--ffn-hidden-size", "768", "--make-vocab-size-divisible-by", "96", "--num-query-groups", "2"], "2 groups"),
    ],
)
def test_a_model_that_tensor_ranks_cannot_share_is_refused(
    model: list[str], sentence: str, sound_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_pretrain(
        [*sound_flags, *WIDTHS, *model],
        architecture="causal_decoder",
        default_objective="full_lm",
        legal_objectives=("full_lm",),
    )
    contents = Contents(progress=Progress(), run=config.as_dict(), tokenizer={}, lineage=[], optimizer={})
    folder = tmp_path / "run" / "iter_0000004"
    folder.mkdir(parents=True)
    Manifest(tensors={}, files={}, contents=contents).write(folder)
    monkeypatch.setenv("WORLD_SIZE", "3")
    words = ["--load", str(folder.parent), "--prompt", "to be", "--device", "cpu", "--tensor-model-parallel-size", "3"]
    with pytest.raises(
        UserError, match=f"--tensor-model-parallel-size 3 does not divide this model .*{sentence}.*; use 2"
    ):
        generate.main(words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--stop", ""], "--stop needs a value"),
        (["--output-path", __file__], f"--output-path {__file__} exists; name a new file"),
        (["--output-path", f"{__file__}/texts.jsonl"], "is not a folder; choose another path"),
        (["--prompt", "to be", "caf\udce9"], "--prompt number 2 is not UTF-8"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(words: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        generate.main(["--load", str(tmp_path), "--prompt", "to be", "--device", "cpu", *words])
    assert sentence in str(raised.value)


def test_lines_of_standard_input_are_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = one_process_grid()

    def prompts(content: bytes) -> list[str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        return generate._prompts(GenerationOptions(), grid)

    assert prompts("é\u2028\r\n\nto be".encode()) == ["é\u2028", "", "to be"]
    assert prompts(b"\n") == [""]
    with pytest.raises(UserError, match="line 2 of standard input is not UTF-8"):
        prompts(b"to be\n\xe9\n")
    with pytest.raises(UserError, match="standard input is empty"):
        prompts(b"")


def decode(tokens: list[int]) -> str:
    """As SentencePiece does it: the first word loses its space."""
    return "".join(PIECES[token] for token in tokens).removeprefix(" ")


ids = st.lists(st.integers(0, len(PIECES) - 2), max_size=30)  # a token that does not show may hide a stop for a while


@settings(deadline=None)
@given(prompt=ids, new=ids, stop=st.text(" abé", min_size=1, max_size=4))
def test_a_text_ends_with_the_token_that_completes_a_stop(prompt: list[int], new: list[int], stop: str) -> None:
    stops = StopTexts([stop], decode)
    text, found, _ = decode([*prompt, *new])[len(decode(prompt)) :].partition(stop)
    assert stops.written(prompt, new) == (text, bool(found))
    ended = next((n for n in range(1, len(new) + 1) if stops.has_ended(prompt, new[:n])), None)
    assert ended == next((n for n in range(1, len(new) + 1) if stops.written(prompt, new[:n])[1]), None)


def test_each_portion_of_texts_is_added_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "texts.jsonl"
    options = GenerationOptions(output_path=str(path), stop=["abb"])
    written = WrittenTexts(options, SimpleNamespace(decode=decode), end_token=5)  # type: ignore[arg-type]
    written.hand_over(["  a"], [[0]], [[1, 5]])
    before = path.read_bytes()
    written.hand_over(["b", ""], [[1], [5]], [[3, 0, 3], [4, 4]])
    assert path.read_bytes().startswith(before)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [list(record.values()) for record in records] == [
        ["  a", "b", 2, "end of text"],
        ["b", "ab aab", 3, "length"],
        ["", "éé", 2, "length"],
    ]

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        written.hand_over(["b"], [[1]], [[3]])
    assert len(path.read_text().splitlines()) == len(records)
