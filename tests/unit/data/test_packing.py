"""Packed documents: all text once an epoch, rows that are full, the same in every process and thread."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_file_samples import numbered_documents, write_token_file

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.basics.errors import UserError
from megatron.data.options import DataOptions
from megatron.data.packing import PackedDocuments, PieceSizes, piece_sizes
from megatron.data.rows import Rows
from megatron.data.sources import WindowRules, build_sources
from megatron.data.splits import TokenRange
from megatron.data.token_file import open_token_file
from megatron.objectives.options import ObjectiveOptions
from megatron.objectives.registry import OBJECTIVES
from megatron.records.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(
    end=60001, pad=60000, sentinels=tuple(range(62000, 61000, -1)), mode_tokens=(60002, 60003, 60004)
)
CELLS = [
    ("causal_decoder", "full_lm", False),
    ("causal_decoder", "full_lm", True),
    ("prefix_decoder", "prefix_lm", False),
    ("prefix_decoder", "prefix_lm", True),
    ("prefix_decoder", "span_corruption", False),
    ("prefix_decoder", "span_corruption", True),
    ("encoder_decoder", "prefix_lm", False),
    ("encoder_decoder", "span_corruption", False),
]


def rows_of(
    prefix: Path, cell: tuple[str, str, bool], seq_length: int, decoder_seq_length: int = 0, **settings_: object
) -> tuple[Rows, PackedDocuments, RowRules]:
    """The rows of one pairing of architecture and objective on a whole file."""
    name, objective_name, starts = cell
    architecture = ARCHITECTURES[name]()
    rules = RowRules(
        seq_length=seq_length,
        decoder_seq_length=decoder_seq_length,
        end_token=SPECIAL.end,
        pad_token=60000,
        start_token=60000,
        begins_with_start_token=starts,
    )
    room = architecture.room(rules)
    objective = OBJECTIVES[objective_name].build(ObjectiveOptions(), SPECIAL, room)
    file = open_token_file(str(prefix))
    source = PackedDocuments(
        file,
        TokenRange(0, file.index.num_tokens),
        piece_sizes(objective, room),
        **{"seed": 3, **settings_},  # type: ignore[arg-type]
    )
    rows = Rows(source=source, objective=objective, arrange=lambda e: architecture.arrange(e, rules), seed=3)
    return rows, source, rules


def plain_sizes(longest: int, overlap: int) -> PieceSizes:
    costs = np.repeat(np.arange(longest + 1)[:, None], 3, axis=1)
    return PieceSizes(costs, np.full(3, longest), overlap)


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=30).filter(any),
    longest=st.integers(2, 25),
    overlap=st.integers(0, 1),
    epoch=st.integers(0, 3),
)
def test_an_epoch_holds_every_document_once_in_pieces_that_join(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], longest: int, overlap: int, epoch: int
) -> None:
    prefix = tmp_path_factory.mktemp("packing") / "corpus"
    write_token_file(prefix, numbered_documents(lengths))
    file = open_token_file(str(prefix))
    source = PackedDocuments(file, TokenRange(0, sum(lengths)), plain_sizes(longest, overlap), seed=1)
    num_rows = source.plan.num_rows
    pieces: list[tuple[int, int]] = []
    for sample in range(epoch * num_rows, (epoch + 1) * num_rows):
        windows = source.windows(sample)
        assert sum(len(window.tokens) for window in windows) <= longest
        for window in windows:
            assert window.index == sample and (np.diff(window.tokens) == 1).all()  # consecutive tokens of the file
            pieces.append((int(window.tokens[0]), int(window.tokens[-1]) + 1))
            is_beginning = int(window.tokens[0]) in np.cumsum([0, *lengths[:-1]])
            assert window.document_starts.tolist() == ([0] if is_beginning else [])
    ends = np.cumsum(lengths)
    of_document: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for piece in sorted(pieces):
        document = int(np.searchsorted(ends, piece[0], side="right"))
        assert piece[1] <= ends[document]  # none crosses into the next document
        of_document[document].append(piece)
    assert sorted(of_document) == [number for number, length in enumerate(lengths) if length]
    for document, own in of_document.items():
        assert own[0][0] == ends[document] - lengths[document] and own[-1][1] == ends[document]
        assert all(after[0] == before[1] - overlap for before, after in itertools.pairwise(own))
        fewest = max(1, -(-(lengths[document] - overlap) // (longest - overlap)))
        assert len(own) == fewest and sum(end - begin < longest for begin, end in own) <= 1


@settings(max_examples=40, deadline=None)
@given(
    cell=st.sampled_from(CELLS),
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=25),
    seq_length=st.integers(12, 40),
    decoder_seq_length=st.integers(8, 40),
)
def test_rows_hold_all_their_examples(
    tmp_path_factory: pytest.TempPathFactory,
    cell: tuple[str, str, bool],
    lengths: list[int],
    seq_length: int,
    decoder_seq_length: int,
) -> None:
    """Every token of the text reaches a row: as a label or, where nothing stands before it or it is given, as a token.

    Arranging raises where examples overflow a row. A document of one token, which predicts nothing and which nothing
    predicts, may be what a row takes more than it has positions.
    """
    prefix = tmp_path_factory.mktemp("rows") / "corpus"
    text = write_token_file(prefix, numbered_documents(lengths))
    rows, source, _ = rows_of(prefix, cell, seq_length, decoder_seq_length)
    seen: set[int] = set()
    for sample in range(source.plan.num_rows):
        row = rows[sample]
        assert len(row.tokens) == (decoder_seq_length if row.encoder else seq_length)
        seen |= {*row.tokens.tolist(), *row.labels.tolist()}
        if row.encoder:
            seen |= set(row.encoder.tokens.tolist())
    alone = {end - 1 for end, length in zip(np.cumsum(lengths).tolist(), lengths, strict=True) if length == 1}
    assert seen >= set(text) - alone


@pytest.mark.parametrize("starts", [False, True])
def test_full_lm_predicts_every_token_once_but_what_begins_a_document(tmp_path: Path, starts: bool) -> None:
    """Without start tokens pieces of a document overlap by the token that is a label here and predicts there."""
    lengths = [3, 50, 1, 17, 16, 100, 18]
    text = write_token_file(tmp_path / "c", numbered_documents(lengths))
    rows, source, _ = rows_of(tmp_path / "c", ("causal_decoder", "full_lm", starts), 16)
    made = [rows[sample] for sample in range(source.plan.num_rows)]
    predicted = sorted(token for row in made for token in row.labels[row.loss_mask == 1].tolist())
    beginnings = set() if starts else set(np.cumsum([0, *lengths[:-1]]).tolist())
    assert predicted == [token for token in text if token not in beginnings]


def test_a_row_takes_one_token_more_than_it_has_positions_as_a_label_alone(tmp_path: Path) -> None:
    """Rows of 8 without start tokens: two documents of 9 tokens in all fill one, behind start tokens they need two."""
    write_token_file(tmp_path / "c", numbered_documents([5, 4]))
    rows, source, _ = rows_of(tmp_path / "c", ("causal_decoder", "full_lm", False), 8)
    assert source.plan.num_rows == 1 and source.plan.fullness[-1] == 1.0
    row = rows[0]
    assert row.tokens.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert row.labels.tolist() == [1, 2, 3, 4, 60000, 6, 7, 8]
    assert row.loss_mask.tolist() == [1, 1, 1, 1, 0, 1, 1, 1]
    assert row.position_ids.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert row.intervals[5:].tolist() == [[5, 6], [5, 7], [5, 8]]
    assert rows_of(tmp_path / "c", ("causal_decoder", "full_lm", True), 8)[1].plan.num_rows == 2


def test_epochs_differ_in_order_company_and_cuts(tmp_path: Path) -> None:
    write_token_file(tmp_path / "c", numbered_documents([3, 4, 5] * 60 + [45] * 12))
    file = open_token_file(str(tmp_path / "c"))
    source = PackedDocuments(file, TokenRange(0, file.index.num_tokens), plain_sizes(10, 1), seed=1)
    size = source.plan.num_rows
    epochs = [[source.windows(e * size + row) for row in range(size)] for e in range(3)]
    begins = [[tuple(int(w.tokens[0]) for w in row) for row in rows] for rows in epochs]
    company = [{frozenset(row) for row in rows if len(row) > 1} for rows in begins]
    assert all(len(one & other) < len(one) / 4 for one, other in itertools.pairwise(company))
    cuts = [{at for row in rows for at in row if at >= 720} for rows in begins]
    assert cuts[0] != cuts[1] != cuts[2]
    other_seed = PackedDocuments(file, TokenRange(0, file.index.num_tokens), plain_sizes(10, 1), seed=2)
    assert [tuple(int(w.tokens[0]) for w in other_seed.windows(row)) for row in range(size)] != begins[0]


def test_validation_is_the_same_in_every_epoch_and_with_every_seed(tmp_path: Path) -> None:
    write_token_file(tmp_path / "c", numbered_documents([3, 4, 5, 45] * 9))
    _, source, _ = rows_of(tmp_path / "c", CELLS[0], 16, shuffled=False)
    size = source.plan.num_rows
    seeded = PackedDocuments(source.file, source.tokens, source.sizes, seed=99, shuffled=False)
    for sample in range(size):
        first, later, other = source.windows(sample), source.windows(sample + 4 * size), seeded.windows(sample)
        assert [w.tokens.tolist() for w in first] == [w.tokens.tolist() for w in later]
        assert [w.tokens.tolist() for w in first] == [w.tokens.tolist() for w in other]


def fingerprint(source: PackedDocuments, samples: list[int]) -> list[str]:
    return [hashlib.sha1(b"|".join(w.tokens.tobytes() for w in source.windows(s))).hexdigest() for s in samples]


def test_samples_are_the_same_in_any_thread_process_and_order(tmp_path: Path) -> None:
    write_token_file(tmp_path / "c", numbered_documents([3, 14, 15, 92, 6] * 20))
    _, source, _ = rows_of(tmp_path / "c", CELLS[0], 32)
    samples = list(range(3 * source.plan.num_rows))
    expected = fingerprint(source, samples)
    with ThreadPoolExecutor(4) as pool:
        assert [one for (one,) in pool.map(lambda s: fingerprint(source, [s]), samples)] == expected
    program = (
        "import json, sys; from pathlib import Path; from test_packing import CELLS, fingerprint, rows_of\n"
        f"_, source, _ = rows_of(Path({str(tmp_path / 'c')!r}), CELLS[0], 32)\n"
        f"print(json.dumps(fingerprint(source, list(range({len(samples)}))[::-1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path]), "PATH": ""},
    )
    assert json.loads(done.stdout)[::-1] == expected


def test_blends_and_splits_of_packed_files(tmp_path: Path) -> None:
    for name, first in (("a", 0), ("b", 2000)):
        documents = [[[first + 10 * d + t for t in range(10)]] for d in range(100)]
        write_token_file(tmp_path / name, documents)
    rules = WindowRules(window_length=25, stride=25, seed=1, sizes=plain_sizes(25, 0))
    options = DataOptions(data_path=["3", str(tmp_path / "a"), "1", str(tmp_path / "b")], split="50,50,0")
    sources = build_sources(options, rules)
    train, valid = sources["train"], sources["valid"]
    assert train is not None and valid is not None
    assert train.samples_per_epoch == pytest.approx(25 / 0.75)  # 50 documents of 10, two in a row of 25
    picked = [train.windows(sample) for sample in range(100)]
    assert [len(windows) for windows in picked] == [2] * 100
    assert all(window.index == sample for sample, windows in enumerate(picked) for window in windows)
    assert sum(int(windows[0].tokens[0]) >= 2000 for windows in picked) == 25
    assert {int(w.tokens[0]) % 2000 < 500 for windows in picked for w in windows} == {True}
    assert {int(w.tokens[0]) % 2000 < 500 for s in range(100) for w in valid.windows(s)} == {False}


def test_a_split_without_tokens_is_refused(tmp_path: Path) -> None:
    write_token_file(tmp_path / "c", numbered_documents([5, 5]))
    file = open_token_file(str(tmp_path / "c"))
    with pytest.raises(UserError, match="0 tokens for valid"):
        PackedDocuments(file, TokenRange(5, 5), plain_sizes(8, 0), seed=1, name="valid")


@pytest.fixture(scope="module")
def library_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stdlib corpus of the quickstart, a token for every four bytes, which is about what its vocabulary makes."""
    folder = tmp_path_factory.mktemp("library")
    script = Path(__file__).resolve().parents[3] / "examples" / "quickstart" / "stdlib_corpus.py"
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    subprocess.run([sys.executable, script, "--output-folder", folder], check=True, env=environment)
    texts = [json.loads(line)["text"].encode() for line in (folder / "train.jsonl").read_text().splitlines()]
    write_token_file(folder / "tokens", numbered_documents([len(text) // 4 + 1 for text in texts]))
    return folder / "tokens"


@pytest.mark.parametrize("cell", CELLS, ids=str)
@pytest.mark.parametrize("lengths", [(256, 58), (512, 114), (1024, 228)])
def test_rows_of_the_library_corpus_are_99_percent_full(
    library_documents: Path, cell: tuple[str, str, bool], lengths: tuple[int, int]
) -> None:
    rows, source, _ = rows_of(library_documents, cell, *lengths)
    assert source.plan.fullness[-1] >= 0.99
    sample = range(0, source.plan.num_rows, 7)
    filled = [_filled_share(rows, number) for number in sample]
    assert np.mean(filled) >= 0.985  # what is seen in the rows themselves, in a part of them


@pytest.mark.parametrize("architecture", ["prefix_decoder", "encoder_decoder"])
def test_rows_of_ul2_are_no_fuller_than_is_said(
    library_documents: Path, architecture: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Documents of one window's length are one piece, though the denoiser, and so what it makes, is drawn later."""
    with caplog.at_level("INFO"):
        rows, source, _ = rows_of(library_documents, (architecture, "ul2", False), 626, 400)
    assert source.sizes.longest == rows.objective.window_length
    assert "rows are at most " in caplog.text
    filled = [_filled_share(rows, number) for number in range(0, source.plan.num_rows, 3)]
    assert 0.6 < np.mean(filled) < source.plan.fullness[-1] <= 1


def test_a_plan_that_is_exact_says_so(library_documents: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        rows_of(library_documents, ("prefix_decoder", "prefix_lm", False), 256)
        rows_of(library_documents, ("encoder_decoder", "span_corruption", False), 512, 114)
    exact, bound = (record.getMessage() for record in caplog.records if "packed into" in record.getMessage())
    assert re.search(r"rows are \d+\.\d % full", exact)
    assert re.search(r"rows are at most \d\d\.\d % \(inputs \d\d\.\d %, targets \d\d\.\d %\) full", bound)


def _filled_share(rows: Rows, sample: int) -> float:
    """Positions that attend to something, of all positions of a row's streams."""
    row = rows[sample]
    intervals = [row.intervals] + ([row.encoder.intervals] if row.encoder else [])
    return float(np.mean(np.concatenate([one[:, 1] > one[:, 0] for one in intervals])))
