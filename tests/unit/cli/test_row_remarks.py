"""What the start says of rows, and settings on documents: those that are taken change rows, the others are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from megatron.basics.errors import UserError
from megatron.cli.run_config import parse_pretrain
from megatron.cli.wire_rows import build_rows
from megatron.data.rows import Rows
from megatron.data.token_file_writer import token_file_writer
from megatron.tokenization.tokenizer import Tokenizer, load_tokenizer

KINDS = ["sentinels", "mode_tokens", "fim_tokens"]
RowsOf = Callable[..., Rows]


@pytest.fixture(scope="module")
def tokenizer(sentencepiece_model: Path) -> Tokenizer:
    return load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model), KINDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """Two token files of four hundred documents of 11 tokens, in one of which each ends with the end token."""
    folder = tmp_path_factory.mktemp("remarks")
    for name, eod_id in (("plain", None), ("ended", tokenizer.eod_id)):
        text = np.random.default_rng(0).integers(300, 800, (400, 11)).astype(np.uint16)
        if eod_id is not None:
            text[:, -1] = eod_id
        with token_file_writer(folder / name, np.uint16) as writer:
            writer.append(text.ravel(), np.full(400, 11, np.int32))
            writer.seal(load_tokenizer("SentencePieceTokenizer", tokenizer.source, []), eod_id)
    return folder


@pytest.fixture
def rows_of(folder: Path, tokenizer: Tokenizer) -> RowsOf:
    """rows_of(architecture, objective, flags, file): the rows that a run with these flags trains on."""

    def rows_of(architecture: str, objective: str, flags: str = "", file: str = "ended") -> Rows:
        files = ["--data-path", str(folder / file), "--tokenizer-model", tokenizer.source]
        config = parse_pretrain(
            [*files, "--add-special-tokens", *KINDS, "--train-iters", "1", "--eval-iters", "0", *flags.split()],
            architecture=architecture,
            default_objective=objective,
            legal_objectives=[objective],
        )
        return build_rows(config, tokenizer, ("train",))["train"]

    return rows_of


def remarks(caplog: pytest.LogCaptureFixture, rows_of: RowsOf, *arguments: str) -> list[str]:
    caplog.clear()
    with caplog.at_level("INFO"):
        rows_of(*arguments)
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("--objective")]


@pytest.mark.parametrize("setting", ["--reset-attention-mask", "--reset-position-ids", "--eod-mask-loss"])
@pytest.mark.parametrize("objective", ["full_lm", "prefix_lm", "span_corruption", "ul2", "fill_in_the_middle"])
def test_a_setting_on_documents_changes_rows_or_is_refused(objective: str, setting: str, rows_of: RowsOf) -> None:
    cell = ("prefix_decoder" if objective in ("prefix_lm", "ul2") else "causal_decoder", objective)
    plain = rows_of(*cell, "--seq-length 64")[0]
    try:
        row = rows_of(*cell, f"--seq-length 64 {setting}")[0]
    except UserError as error:
        assert error.faults == (f"{setting} has no effect with --objective {objective}; leave it out.",)
        assert objective in ("span_corruption", "ul2")
        return
    changed = {"--reset-attention-mask": "intervals", "--reset-position-ids": "position_ids"}.get(setting, "loss_mask")
    assert not np.array_equal(getattr(row, changed), getattr(plain, changed))
    if setting != "--reset-attention-mask":  # which lets a prefix LM cut each document by itself
        assert np.array_equal(row.intervals, plain.intervals) and np.array_equal(row.tokens, plain.tokens)


def test_end_tokens_inside_of_complete_examples_are_told(
    rows_of: RowsOf, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    span = ("prefix_decoder", "span_corruption", "--seq-length 64")
    (line,) = remarks(caplog, rows_of, *span)
    assert line.startswith(
        f"--objective span_corruption: windows have end tokens where documents meet, because {folder}"
    )
    assert not remarks(caplog, rows_of, *span, "plain")
    assert not remarks(caplog, rows_of, *span[:2], "--seq-length 64 --pack-documents")
    assert not remarks(caplog, rows_of, "prefix_decoder", "prefix_lm", "--seq-length 64")


def test_packed_documents_have_one_end(rows_of: RowsOf, tokenizer: Tokenizer) -> None:
    """Their own is left out, and arranging puts one behind inputs and one behind targets."""
    for objective in ("span_corruption", "ul2"):
        row = rows_of("prefix_decoder", objective, "--seq-length 64 --pack-documents")[0]
        assert tokenizer.eod_id in row.labels
        assert not ((row.labels[1:] == tokenizer.eod_id) & (row.labels[:-1] == tokenizer.eod_id)).any()


@pytest.mark.parametrize(
    ("objective", "lengths", "sentence"),
    [
        ("span_corruption", (512, 60), "268 positions of --seq-length 512 and 60 of --decoder-seq-length 60; --dec"),
        ("span_corruption", (512, 512), "512 positions of --seq-length 512 and 114 of --decoder-seq-length 512; --dec"),
        ("span_corruption", (2048, 60), "268 positions of --seq-length 2048 and 60 of --decoder-seq-length 60; --seq"),
        ("ul2", (512, 512), "--decoder-seq-length 341 fits"),
        ("span_corruption", (512, 114), None),
        ("prefix_lm", (512, 60), None),
    ],
)
def test_rows_of_an_encoder_decoder_that_stay_empty_are_told(
    objective: str,
    lengths: tuple[int, int],
    sentence: str | None,
    rows_of: RowsOf,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def said(seq_length: int | str, decoder_seq_length: int | str) -> list[str]:
        flags = f"--seq-length {seq_length} --decoder-seq-length {decoder_seq_length}"
        return remarks(caplog, rows_of, "encoder_decoder", objective, flags, "plain")

    lines = said(*lengths)
    if sentence is None:
        assert not lines
        return
    (line,) = lines
    assert sentence in line
    flag, value = line.removesuffix(" fits.").split()[-2:]  # which is true
    assert not (said(value, lengths[1]) if flag == "--seq-length" else said(lengths[0], value))
    assert remarks(caplog, rows_of, "encoder_decoder", objective, "--pack-documents --seq-length 512", "plain") == []
