"""Windows: every token a label once an epoch, nothing of another split, the same in every process."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_file_samples import numbered_documents, write_token_file

from megatron.basics.errors import UserError
from megatron.data.splits import TokenRange, split_ranges
from megatron.data.token_file import open_token_file
from megatron.data.windows import SplitWindows


def windows_of(prefix: Path, tokens: TokenRange | None = None, *, stride: int, **settings_: object) -> SplitWindows:
    file = open_token_file(str(prefix))
    tokens = tokens or TokenRange(0, file.index.num_tokens)
    return SplitWindows(file, tokens, window_length=stride + 1, stride=stride, seed=3, **settings_)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=3, max_size=12),
    stride=st.integers(1, 20),
    shuffled=st.booleans(),
    data=st.data(),
)
def test_an_epoch_labels_each_token_at_most_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], stride: int, shuffled: bool, data: st.DataObject
) -> None:
    prefix = tmp_path_factory.mktemp("windows") / "corpus"
    write_token_file(prefix, numbered_documents(lengths))
    begin = data.draw(st.integers(0, sum(lengths) - stride - 1)) if sum(lengths) > stride + 1 else 0
    end = data.draw(st.integers(begin + stride + 1, sum(lengths))) if begin + stride + 1 <= sum(lengths) else None
    if end is None:
        return
    source = windows_of(prefix, TokenRange(begin, end), stride=stride, shuffled=shuffled)
    document_begins = {0, *np.cumsum(lengths)[:-1].tolist()}
    for epoch in (0, 1, 5):
        labels: Counter[int] = Counter()
        for place in range(source.num_windows):
            (window,) = source.windows(epoch * source.num_windows + place)
            tokens = window.tokens.tolist()
            assert window.tokens.dtype == window.document_starts.dtype == np.int32 and len(tokens) == stride + 1
            assert window.index == epoch * source.num_windows + place
            assert all(begin <= token < end for token in tokens)  # tokens are numbered: nothing of another split
            follows = [
                after == before + 1 or (before, after) == (end - 1, begin)
                for before, after in itertools.pairwise(tokens)
            ]
            assert all(follows)
            expected = [at for at, token in enumerate(tokens) if token in document_begins]
            assert window.document_starts.tolist() == expected
            labels.update(tokens[1:])
        assert max(labels.values()) == 1
        assert (end - begin) - len(labels) < stride


def test_cuts_and_order_differ_between_epochs_and_seeds(tmp_path: Path) -> None:
    write_token_file(tmp_path / "corpus", numbered_documents([500, 700, 813]))
    source = windows_of(tmp_path / "corpus", stride=16)
    begins = np.array([[source.windows(e * source.num_windows + i)[0].tokens[0] for i in range(20)] for e in range(8)])
    assert len({tuple(row) for row in begins}) == 8
    assert len(set((begins % 16).ravel())) > 6  # cuts, not only the order, move
    other = SplitWindows(source.file, source.tokens, window_length=17, stride=16, seed=4)
    assert [other.windows(i)[0].tokens[0] for i in range(20)] != begins[0].tolist()


def test_validation_is_always_the_same_and_in_order(tmp_path: Path) -> None:
    write_token_file(tmp_path / "corpus", numbered_documents([50, 50]))
    source = windows_of(tmp_path / "corpus", stride=10, shuffled=False)
    assert [int(source.windows(i)[0].tokens[0]) for i in range(12)] == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 0, 10]


def test_a_split_shorter_than_a_window_is_refused_with_the_numbers(tmp_path: Path) -> None:
    write_token_file(tmp_path / "corpus", numbered_documents([5, 5]))
    with pytest.raises(UserError, match=r"10 tokens for train, fewer than one window of 11; .*--seq-length"):
        windows_of(tmp_path / "corpus", stride=10)
    assert windows_of(tmp_path / "corpus", stride=9).num_windows == 1


def test_samples_are_the_same_in_another_process_and_another_order(tmp_path: Path) -> None:
    write_token_file(tmp_path / "corpus", numbered_documents([300, 400]))
    program = (
        "from megatron.data.token_file import open_token_file; from megatron.data.splits import TokenRange\n"
        "from megatron.data.windows import SplitWindows\n"
        f"file = open_token_file({str(tmp_path / 'corpus')!r})\n"
        "source = SplitWindows(file, TokenRange(0, 700), window_length=11, stride=10, seed=3)\n"
        "print([int(source.windows(i)[0].tokens[0]) for i in reversed(range(200))])"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    source = windows_of(tmp_path / "corpus", stride=10)
    assert printed.strip() == str([int(source.windows(i)[0].tokens[0]) for i in range(200)][::-1])


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=40), weights=st.tuples(*[st.integers(0, 50)] * 3))
@settings(max_examples=60, deadline=None)
def test_splits_are_disjoint_whole_documents(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], weights: tuple[int, int, int]
) -> None:
    if not sum(lengths) or not sum(weights):
        return
    prefix = tmp_path_factory.mktemp("splits") / "corpus"
    write_token_file(prefix, numbered_documents(lengths))
    total = sum(weights)
    ranges = split_ranges(
        open_token_file(str(prefix)).index, (weights[0] / total, weights[1] / total, weights[2] / total)
    )
    bounds = [ranges["train"].begin, ranges["train"].end, ranges["valid"].end, ranges["test"].end]
    assert bounds == sorted(bounds) and bounds[0] == 0 and bounds[3] == sum(lengths)
    assert ranges["valid"].begin == ranges["train"].end and ranges["test"].begin == ranges["valid"].end
    assert set(bounds) <= {0, *np.cumsum(lengths).tolist()}


def test_splits_cut_where_megatron_core_cuts(tmp_path: Path) -> None:
    from megatron.core.datasets.blended_megatron_dataset_config import convert_split_vector_to_split_matrix

    for documents in (1, 10, 33, 101, 1000):
        write_token_file(tmp_path / "corpus", numbered_documents([2] * documents))
        ranges = split_ranges(open_token_file(str(tmp_path / "corpus")).index, (0.969, 0.03, 0.001))
        for ours, share in zip(
            ("train", "valid", "test"), convert_split_vector_to_split_matrix([0.969, 0.03, 0.001]), strict=True
        ):
            begin, end = (round(bound * float(documents)) for bound in share)
            assert (ranges[ours].begin, ranges[ours].end) == (2 * begin, 2 * end)
