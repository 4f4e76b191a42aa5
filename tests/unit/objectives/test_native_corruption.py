"""Native span corruption and token masking: the numpy twins' results to the bit, whatever the batch or the thread."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.basics import native_extension
from megatron.objectives import native
from megatron.objectives.noise_spans import corrupt_rows, corrupt_rows_in_numpy
from megatron.objectives.token_masking import TokenMasking

ROOT = Path(__file__).resolve().parents[3]
SENTINELS = np.arange(9000, 8000, -1, dtype=np.int32)
EXTENSION = native.native_corruption()
needs_extension = pytest.mark.skipif(EXTENSION is None, reason="csrc/corruption is not built")


def rows_of(rows: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 1000, (rows, length), np.int32), generator.integers(0, 2**64, rows, np.uint64)


def assert_same(ours: tuple[np.ndarray, ...], theirs: tuple[np.ndarray, ...]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)


@needs_extension
@settings(deadline=None)
@given(length=st.integers(2, 700), rows=st.integers(1, 6), seed=st.integers(0, 2**31), data=st.data())
def test_span_corruption_equals_its_twin(length, rows, seed, data):
    noise = data.draw(st.integers(1, length - 1))
    spans = data.draw(st.integers(1, min(noise, length - noise)))
    tokens, seeds = rows_of(rows, length, seed)
    ours = corrupt_rows(tokens, seeds, SENTINELS, noise, spans)
    assert_same(ours, corrupt_rows_in_numpy(tokens, seeds, SENTINELS, noise, spans))


@needs_extension
def test_a_row_does_not_depend_on_its_batch():
    """Rows at the end of a batch are copied by another loop than those before."""
    tokens, seeds = rows_of(40, 568, 1)
    inputs, targets = corrupt_rows(tokens, seeds, SENTINELS, 85, 28)
    alone = [corrupt_rows(tokens[k : k + 1], seeds[k : k + 1], SENTINELS, 85, 28) for k in range(40)]
    assert_same((inputs, targets), tuple(np.concatenate(parts) for parts in zip(*alone, strict=True)))
    every_third = corrupt_rows(tokens[::3], seeds[::3].copy(), SENTINELS, 85, 28)
    assert_same(every_third, (inputs[::3], targets[::3]))


@needs_extension
def test_threads_do_not_disturb_each_other():
    batches = [rows_of(64, 568, seed) for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda batch: corrupt_rows(*batch, SENTINELS, 85, 28), batches))
    for batch, results in zip(batches, together, strict=True):
        assert_same(results, corrupt_rows(*batch, SENTINELS, 85, 28))


@needs_extension
@settings(deadline=None)
@given(
    length=st.integers(1, 700),
    rows=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    share=st.floats(0, 1),
    left_alone=st.sets(st.integers(0, 999), max_size=900),
)
def test_token_masking_equals_its_twin(length, rows, seed, share, left_alone):
    masking = TokenMasking(
        vocabulary_size=1000, mask_token=4, left_alone=left_alone, random_tokens=range(5, 1000), share=share
    )
    tokens, seeds = rows_of(rows, length, seed)
    assert_same(masking(tokens, seeds), masking.in_numpy(tokens, seeds))


@needs_extension
def test_what_does_not_fit_is_refused():
    tokens, seeds = rows_of(3, 10, 0)
    for noise, spans in ((0, 1), (10, 1), (4, 5), (4, 0), (8, 3), (-1, 1)):
        with pytest.raises(ValueError, match="spans must be 1"):
            corrupt_rows(tokens, seeds, SENTINELS, noise, spans)
    with pytest.raises(ValueError, match=r"seeds must be uint64 \[rows\]"):
        corrupt_rows(tokens, seeds[:2], SENTINELS, 4, 2)
    with pytest.raises(ValueError, match="sentinels must be"):
        corrupt_rows(tokens, seeds, SENTINELS[:1], 4, 2)
    with pytest.raises(TypeError):
        corrupt_rows(tokens.astype(np.int64), seeds, SENTINELS, 4, 2)


def test_the_twin_is_used_when_told_to_and_one_line_says_so():
    code = (
        "import logging; logging.basicConfig(level='INFO', format='%(message)s')\n"
        "from megatron.objectives.native import native_corruption as there; print(there()); there()"
    )
    environment = {**os.environ, "TRIARCH_NO_NATIVE": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "None"
    assert result.stderr.count("native corruption: switched off by TRIARCH_NO_NATIVE=1; numpy does") == 1


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (ModuleNotFoundError("no module"), "not built (run `make setup`); numpy does the same work"),
        (ImportError("made for another Python"), "cannot be loaded (made for another Python); run `make setup` again"),
    ],
)
def test_an_extension_that_is_not_there_is_one_line(fault, line, monkeypatch, caplog):
    def fails(name: str) -> None:
        raise fault

    monkeypatch.delenv("TRIARCH_NO_NATIVE", raising=False)
    monkeypatch.setattr(native_extension.importlib, "import_module", fails)
    with caplog.at_level(logging.INFO):
        assert native_extension.native_extension.__wrapped__("some.extension", "corruption", "numpy") is None
    assert len(caplog.records) == 1 and line in caplog.text
