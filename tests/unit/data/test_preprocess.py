"""From text to token files, held against the tokenizer called by hand and megatron-core's reader."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron.basics.errors import RunFault, UserError
from megatron.data import encoder_pool, text_input
from megatron.data.preprocess import Summary, preprocess
from megatron.data.preprocess_options import PreprocessOptions, TextInputOptions
from megatron.tokenization.tokenizer import Tokenizer, load_tokenizer

TEXTS = list(topics.values())[:30]


@pytest.fixture(scope="module")
def tokenizer(sentencepiece_model: Path) -> Tokenizer:
    return load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))


def run(tokenizer: Tokenizer, prefix: Path, paths: list[Path], **settings: Any) -> Summary:
    of_input = {
        name: settings.pop(name) for name in ("json_keys", "input_format", "text_documents") if name in settings
    }
    text = TextInputOptions(input=[str(path) for path in paths], **of_input)
    settings = {"workers": 2, **settings}
    return preprocess(text, PreprocessOptions(output_prefix=str(prefix), tokenizer_model="x", **settings), tokenizer)


def write_lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def documents_in(prefix: Path) -> list[list[int]]:
    """As megatron-core reads them."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(str(prefix))
    return [[int(token) for token in dataset[row]] for row in range(len(dataset))]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("append_eod", [False, True])
def test_megatron_core_reads_what_the_tokenizer_says(tokenizer: Tokenizer, tmp_path: Path, append_eod: bool) -> None:
    path = write_lines(tmp_path / "in.jsonl", TEXTS)
    summary = run(tokenizer, tmp_path / "out", [path], append_eod=append_eod)
    expected = [tokenizer.encode(text) + [tokenizer.eod_id] * append_eod for text in TEXTS]
    assert documents_in(tmp_path / "out_text_document") == expected
    (facts,) = summary.files.values()
    assert (facts.documents, facts.tokens) == (len(TEXTS), sum(map(len, expected)))
    assert facts.eod_id == (1 if append_eod else None)
    assert names(tmp_path) == ["in.jsonl", *(f"out_text_document.{ending}" for ending in ("bin", "idx", "json"))]


LINES = st.lists(
    st.sampled_from([json.dumps({"text": text}) for text in ["a word", "", "é你\n", "x" * 99]] + ["", "{", '{"a": 1}']),
    max_size=30,
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(LINES, min_size=1, max_size=3), workers=st.integers(2, 4))
def test_bytes_do_not_depend_on_workers_and_blocks(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, files: list[list[str]], workers: int
) -> None:
    folder = tmp_path_factory.mktemp("same")
    paths = [folder / f"{number}.jsonl" for number in range(len(files))]
    for path, lines in zip(paths, files, strict=True):
        path.write_text("\n".join(['{"text": "first"}', *lines]))
    one = run(tokenizer, folder / "one", paths, workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_input, "BLOCK_BYTES", 64)
        many = run(tokenizer, folder / "many", paths, workers=workers)
    for ending in ("bin", "idx", "json"):
        same = [(folder / f"{name}_text_document.{ending}").read_bytes() for name in ("one", "many")]
        assert same[0] == same[1]
    assert (one.faults, one.empty_documents) == (many.faults, many.empty_documents)
    lines = [line for lines in files for line in lines]
    assert one.faults == sum(line in ("{", '{"a": 1}') for line in lines)
    assert one.empty_documents == lines.count('{"text": ""}')


def test_all_kinds_of_input_together(tokenizer: Tokenizer, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "a.jsonl", TEXTS[:5]).read_bytes()
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.zst").write_bytes(zstandard.compress(lines))
    (tmp_path / "d.txt").write_text("one document\n\nof a file\n")
    run(tokenizer, tmp_path / "out", [tmp_path / name for name in ("d.txt", "a.jsonl", "c.zst", "b.jsonl.gz")])
    expected = [tokenizer.encode(text) for text in ["one document\n\nof a file", *TEXTS[:5] * 3]]
    assert documents_in(tmp_path / "out_text_document") == expected


def test_keys_stay_in_step(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = [{"q": "one", "a": "two"}, {"q": "", "a": "lost"}, {"q": "lost"}, {"q": "three", "a": "four"}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    summary = run(tokenizer, tmp_path / "out", [tmp_path / "in.jsonl"], json_keys=["q", "a"])
    assert documents_in(tmp_path / "out_q_document") == [tokenizer.encode(text) for text in ("one", "three")]
    assert documents_in(tmp_path / "out_a_document") == [tokenizer.encode(text) for text in ("two", "four")]
    assert (summary.faults, summary.empty_documents) == (1, 1)


def test_broken_lines_are_named_then_counted(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"text": "good"}\n{"te\n\xff\n{"text": "a\\u0000"}\n' + b"{}\n" * 30)
    summary = run(tokenizer, tmp_path / "out", [path])
    told = capsys.readouterr().err
    assert summary.faults == 33
    assert f"{path}:2: not JSON" in told and f"{path}:3: not UTF-8" in told and f"{path}:4: holds a NUL" in told
    assert f"{path}:21:" in told and f"{path}:22:" not in told
    assert 'left out 33 documents: 30 x no key "text", 1 x not JSON, 1 x not UTF-8, 1 x holds a NUL character' in told
    assert "left out 33 broken and 0 empty documents" in list(summary.lines())[-1]


def test_strict_stops_at_the_first_broken_line_and_leaves_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    good = json.dumps({"text": "good " * 1000}) + "\n"
    path = tmp_path / "in.jsonl"
    path.write_text(good * 300 + "{}\n" + good * 300 + "{\n")
    with pytest.raises(UserError, match=r'in\.jsonl:301: no key "text"; nothing was written'):
        run(tokenizer, tmp_path / "out", [path], strict=True)
    assert names(tmp_path) == ["in.jsonl"]


@pytest.mark.parametrize("content", ["", "\n\n", '{"text": ""}\n', "{}\n"])
def test_nothing_to_write(tokenizer: Tokenizer, tmp_path: Path, content: str) -> None:
    (tmp_path / "in.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"in\.jsonl holds no document that could be used"):
        run(tokenizer, tmp_path / "out", [tmp_path / "in.jsonl"])
    assert names(tmp_path) == ["in.jsonl"]


def test_cut_archive_leaves_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    (tmp_path / "in.gz").write_bytes(gzip.compress(lines)[:-100])
    with pytest.raises(UserError, match="ends in the middle"):
        run(tokenizer, tmp_path / "out", [tmp_path / "in.gz"])
    assert names(tmp_path) == ["in.gz"]


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 64 kB; the system answers as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_leaves_nothing(tokenizer: Tokenizer, tmp_path: Path, small_disk: None) -> None:
    for number in range(20):
        write_lines(tmp_path / f"{number}.jsonl", TEXTS[:2])
    paths = sorted(tmp_path.glob("*.jsonl")) * 20
    with pytest.raises(UserError, match=r"out_text_document\.bin could not be written"):
        run(tokenizer, tmp_path / "out", paths)
    assert names(tmp_path) == sorted({path.name for path in paths})


class DeadlyTokenizer(Tokenizer):
    """Ends its process in the middle of the work, as the kernel does when the memory runs out."""

    def __init__(self, wrapped: Tokenizer) -> None:
        self.__dict__.update(wrapped.__dict__)
        self.guarded = False
        self.parent = os.getpid()

    def _encode_whole(self, texts: list[str]) -> list[Any]:
        assert os.getpid() != self.parent
        if "bomb" in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        return [np.array([7], dtype=np.int32) for _ in texts]

    def decode(self, ids: object) -> str:
        raise NotImplementedError

    def piece(self, token: int) -> str:
        raise NotImplementedError

    def surfaces(self) -> list[str | None]:
        raise NotImplementedError


def test_dead_worker_ends_the_job(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_input, "BLOCK_BYTES", 64)
    path = write_lines(tmp_path / "in.jsonl", ["text"] * 500 + ["bomb"] + ["text"] * 500)
    with pytest.raises(RunFault, match="a worker process died, so nothing was written"):
        run(DeadlyTokenizer(tokenizer), tmp_path / "out", [path])
    assert names(tmp_path) == ["in.jsonl"]


def test_reading_waits_for_the_workers(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the input is, only so many blocks and bytes are under way."""
    from megatron.data.encode import BlockEncoder
    from megatron.data.text_input import TextBlock

    read = 0

    def endless() -> Iterator[TextBlock]:
        nonlocal read
        while True:
            read += 1
            yield TextBlock("in", "line", read, b"word\n" * 200)

    for limit, most in [(2**30, 2 * encoder_pool.BLOCKS_AHEAD_PER_WORKER), (3000, 3)]:
        monkeypatch.setattr(encoder_pool, "BYTES_AHEAD", limit)
        read = 0
        encoded = encoder_pool.encode_in_order(endless(), BlockEncoder(tokenizer, ("text",), None), workers=2)
        for done in range(50):
            next(encoded)
            assert read - done <= most + 1
        encoded.close()


def test_huge_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = " ".join(TEXTS[0].split()) + " "
    text = (text * (20_000_000 // len(text)))[:-1]
    path = write_lines(tmp_path / "in.jsonl", ["before", text, "after"])
    run(tokenizer, tmp_path / "out", [path])
    before, long, after = documents_in(tmp_path / "out_text_document")
    assert (before, after) == (tokenizer.encode("before"), tokenizer.encode("after"))
    assert tokenizer.decode(long) == text


COMMAND = [sys.executable, "tools/preprocess_data.py", "--workers", "2", "--input", "-"]


def start_command(model: Path, prefix: Path) -> subprocess.Popen[bytes]:
    command = [*COMMAND, "--tokenizer-model", str(model), "--output-prefix", str(prefix)]
    environment = {**os.environ, "PYTHONPATH": "."}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)


def test_command_reads_standard_input(tokenizer: Tokenizer, sentencepiece_model: Path, tmp_path: Path) -> None:
    process = start_command(sentencepiece_model, tmp_path / "new" / "out")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    output, errors = process.communicate(gzip.compress(lines), timeout=60)
    assert (process.returncode, errors) == (0, b"")
    assert f"{len(TEXTS)} documents".encode() in output
    assert documents_in(tmp_path / "new" / "out_text_document") == [tokenizer.encode(text) for text in TEXTS]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_stopped_command_leaves_no_token_file_and_no_process(
    sentencepiece_model: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    process = start_command(sentencepiece_model, tmp_path / "out")
    assert process.stdin is not None
    line = json.dumps({"text": TEXTS[0]}).encode() + b"\n"
    feeding = threading.Event()

    def feed() -> None:
        try:
            while True:
                process.stdin.write(line * 100)  # type: ignore[union-attr]
                feeding.set()
        except BrokenPipeError:
            pass

    threading.Thread(target=feed, daemon=True).start()
    assert feeding.wait(30)
    time.sleep(2.0)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(children) == 2
    process.send_signal(stop)
    assert process.wait(30) == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[stop]
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    left = [name for name in names(tmp_path) if not (stop == signal.SIGKILL and name.endswith(".tmp"))]
    assert left == []
