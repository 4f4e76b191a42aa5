"""Examples in packed rows: the multiset in is the multiset out, whatever the lengths, weights, ranks and resumes."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_samples import write_marked_pairs

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.basics.errors import UserError
from megatron.data import packed_pairs
from megatron.data.batch_positions import BatchGeometry
from megatron.data.mixture import Mixture
from megatron.data.packed_pairs import ExampleRange, PackedPairs
from megatron.data.pair_file import open_pair_file
from megatron.data.rows import Rows
from megatron.objectives.options import ObjectiveOptions
from megatron.objectives.registry import OBJECTIVES
from megatron.records.room import Room
from megatron.records.special_tokens import SpecialTokens

END = 1
DECODER, TWO_ROWS = Room(33, 33, 33, 1), Room(24, 12, 36)
LENGTHS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 11)), min_size=1, max_size=40)


def source_of(folder: Path, sets: list[tuple[float, list[tuple[int, int]]]], room: Room, **told: object) -> PackedPairs:
    """The rows of data sets with these weights and lengths."""
    parts = []
    for number, (weight, lengths) in enumerate(sets):
        lengths = [*lengths[:-1], (max(lengths[-1][0], 1), max(lengths[-1][1], 1))]  # files without tokens are refused
        file = open_pair_file(write_marked_pairs(folder / f"set{number}", number, lengths))
        parts.append(ExampleRange(file, range(len(lengths)), weight))
    return PackedPairs(parts, room, **{"seed": 5, **told})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that a test comes to the end of."""
    monkeypatch.setattr(packed_pairs, "FEWEST_ROWS", 6)
    monkeypatch.setattr(packed_pairs, "LARGEST_BLOCK", 48)


@settings(deadline=None, max_examples=40)
@given(
    sets=st.lists(st.tuples(st.sampled_from([1.0, 2.5, 40.0]), LENGTHS), min_size=1, max_size=4),
    room=st.sampled_from([DECODER, TWO_ROWS]),
    shuffled=st.booleans(),
)
def test_every_example_once_before_any_twice(
    sets: list[tuple[float, list[tuple[int, int]]]],
    room: Room,
    shuffled: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    source = source_of(tmp_path_factory.mktemp("sets"), sets, room, shuffled=shuffled)
    size = source._block_size
    sample = 0
    seen: Counter[int] = Counter()
    for block in range(1, 4):
        while seen.total() < block * size:
            examples = source.examples(sample)
            assert examples, "a row without examples"
            windows = source.windows(sample)
            seen.update(examples)
            used = np.zeros(3, np.int64)
            for window in windows:
                assert window.num_inputs is not None and len(set(window.tokens.tolist())) <= 1  # of one example alone
                used += (window.num_inputs, len(window.tokens) - window.num_inputs + 1, len(window.tokens) + 1)
            assert (used <= (room.inputs, room.targets, room.total)).all()
            sample += 1
        assert seen.total() == block * size  # no row holds examples of two blocks
        weights = sum(weight for weight, _ in sets)
        begin = 0
        for weight, lengths in sets:
            counts = [seen[begin + k] for k in range(len(lengths))]
            total = Fraction(weight) / Fraction(weights) * block * size
            assert abs(sum(counts) - total) < 2  # the share by weight
            assert max(counts) - min(counts) <= 1  # once before any twice
            begin += len(lengths)


@settings(deadline=None, max_examples=20)
@given(ranks=st.integers(1, 4), micro=st.integers(1, 3), resume=st.integers(0, 60), ahead=st.integers(0, 20))
def test_ranks_and_resumes_see_the_same_rows(
    ranks: int, micro: int, resume: int, ahead: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sets = [(3.0, [(k % 23, 1 + k % 9) for k in range(90)]), (1.0, [(30, 2)] * 11)]
    folder = tmp_path_factory.mktemp("sets")
    whole = source_of(folder, sets, TWO_ROWS)
    expected = [whole.examples(sample) for sample in range(120)]
    resumed = source_of(folder, sets, TWO_ROWS)
    resumed.examples(resume + ahead)  # what was read before changes nothing
    dealt: dict[int, list[int]] = {}
    for rank in range(ranks):
        geometry = BatchGeometry(micro_batch_size=micro, data_parallel_size=ranks, data_parallel_rank=rank)
        for sample in geometry.samples(resume):
            dealt[sample] = resumed.examples(sample)
    assert sorted(dealt) == list(range(resume, resume + ranks * micro))
    assert all(examples == expected[sample] for sample, examples in dealt.items())


def test_threads_read_the_same_rows(tmp_path: Path) -> None:
    sets = [(1.0, [(1 + k % 20, 1 + k % 5) for k in range(200)])]
    alone, shared = (source_of(tmp_path, sets, DECODER) for _ in range(2))
    samples = [*range(150), *range(149, -1, -1)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(shared.examples, samples))
    assert together == [alone.examples(sample) for sample in samples]


def test_seeds_give_other_rows_and_validation_one_order(tmp_path: Path) -> None:
    sets = [(1.0, [(1 + k % 20, 1 + k % 5) for k in range(40)])]
    first, other = (source_of(tmp_path, sets, DECODER, seed=seed) for seed in (5, 6))
    assert [first.examples(k) for k in range(6)] != [other.examples(k) for k in range(6)]
    valid = source_of(tmp_path, sets, DECODER, shuffled=False)
    rows = list(itertools.takewhile(lambda examples: examples is not None, map(valid.examples, range(6))))
    assert rows == [source_of(tmp_path, sets, DECODER, shuffled=False, seed=6).examples(k) for k in range(6)]
    assert valid._block_size == 40  # one pass


def test_inputs_are_cut_at_their_beginning_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        source = source_of(tmp_path, [(1.0, [(50, 4), (20, 4)])], DECODER)
    assert "train: 2 examples of 1 data set packed into about " in caplog.text
    assert "1 inputs are cut at their beginning" in caplog.text
    windows = [window for sample in range(3) for window in source.windows(sample)]
    assert {(window.num_inputs, len(window.tokens)) for window in windows} == {(28, 32), (20, 24)}
    file = source._parts[0].file
    tokens, num_inputs = file.read(0, TWO_ROWS)
    assert (num_inputs, len(tokens)) == (24, 28)


def test_a_row_without_a_start_token_keeps_an_input_to_predict_the_first_target_from(tmp_path: Path) -> None:
    """A target of 31 and its end fill a row of 32; what it is predicted from is the token before."""
    file = open_pair_file(write_marked_pairs(tmp_path / "full", 0, [(5, 31)]))
    assert file.sizes(range(1), DECODER)[0].tolist() == [[1, 32]]
    assert file.sizes(range(1), Room(32, 32, 32))[0].tolist() == [[0, 32]]  # behind a start token
    over = open_pair_file(write_marked_pairs(tmp_path / "over", 0, [(5, 31), (5, 32)]))
    with pytest.raises(UserError, match="example 1 and its end token are 33 tokens, and a row takes 32; raise --seq-l"):
        over.sizes(range(2), DECODER)
    bare = open_pair_file(write_marked_pairs(tmp_path / "bare", 0, [(5, 2), (0, 2)]))
    with pytest.raises(UserError, match=r"bare: example 1 has no inputs, .*; add --begin-with-start-token, or leave"):
        bare.sizes(range(2), DECODER)
    for room in (Room(32, 32, 32), TWO_ROWS):
        assert bare.sizes(range(2), room)[0].tolist() == [[5, 3], [0, 3]]


CELLS = [
    ("causal_decoder", False),
    ("causal_decoder", True),
    ("prefix_decoder", False),
    ("prefix_decoder", True),
    ("encoder_decoder", False),
]


@pytest.mark.parametrize(("name", "starts"), CELLS)
def test_arranged_rows_hold_whole_examples_and_lose_no_target(name: str, starts: bool, tmp_path: Path) -> None:
    """From files to rows, read back by hand: labels with loss are the targets, each behind its inputs, and its end."""
    architecture = ARCHITECTURES[name]()
    rules = RowRules(seq_length=32, decoder_seq_length=12, end_token=END, begins_with_start_token=starts)
    room = architecture.room(rules)
    lengths = [(1 + k % 17, 1 + k % 7) for k in range(60)]
    source = source_of(tmp_path, [(1.0, lengths[:40]), (1.0, lengths[40:])], room)
    objective = OBJECTIVES["multitask"].build(ObjectiveOptions(), SpecialTokens(end=END), room)
    rows = Rows(source=source, objective=objective, arrange=lambda e: architecture.arrange(e, rules), seed=1)
    found: Counter[int] = Counter()
    for sample in range(60):
        row = rows[sample]
        labels = row.labels[row.loss_mask > 0].tolist()
        answers = [list(group) for is_end, group in itertools.groupby(labels, lambda label: label == END) if not is_end]
        assert labels.count(END) == len(answers) == len(source.examples(sample))
        for answer in answers:
            assert len(set(answer)) == 1, "targets of two examples run together"
            number, example = divmod(answer[0] - 1000, 1000)
            inputs, targets = lengths[40 * number + example]
            assert len(answer) == targets
            given = row.encoder.tokens if row.encoder else row.tokens
            assert given.tolist().count(answer[0]) == inputs + (0 if row.encoder else targets)
            found[answer[0]] += 1
    assert set(found) == {*range(1000, 1040), *range(2000, 2020)}


@pytest.mark.parametrize("name", ["causal_decoder", "prefix_decoder"])
@pytest.mark.parametrize("starts", [False, True])
def test_a_target_that_fills_its_row_is_learnt_whole(name: str, starts: bool, tmp_path: Path) -> None:
    architecture = ARCHITECTURES[name]()
    rules = RowRules(seq_length=8, end_token=END, begins_with_start_token=starts)
    room = architecture.room(rules)
    source = source_of(tmp_path, [(1.0, [(5, 7), (3, 7)])], room, shuffled=False)
    objective = OBJECTIVES["multitask"].build(ObjectiveOptions(), SpecialTokens(end=END), room)
    rows = Rows(source=source, objective=objective, arrange=lambda e: architecture.arrange(e, rules), seed=1)
    learnt = {tuple(row.labels[row.loss_mask > 0].tolist()) for row in map(rows.__getitem__, range(2))}
    assert learnt == {(1000,) * 7 + (END,), (1001,) * 7 + (END,)}


def test_a_mixture_that_is_proportional_is_used_up_at_once() -> None:
    mixture = Mixture([100, 40, 4], [100, 40, 4], seed=1)
    assert mixture.examples_per_pass == 144
    assert sorted(mixture.take(0, 144)) == list(range(144))
    capped = Mixture([1000, 40], [100, 40], seed=1)  # of the large one another tenth each time
    passes = [capped.take(140 * k, 140 * (k + 1)) for k in range(10)]
    assert sorted(np.concatenate([part[part < 1000] for part in passes])) == list(range(1000))
    assert all(sorted(part[part >= 1000]) == list(range(1000, 1040)) for part in passes)
    assert not np.array_equal(passes[0][passes[0] >= 1000], passes[1][passes[1] >= 1000])


@settings(deadline=None, max_examples=30)
@given(size=st.sampled_from([1, 7, 100, 35_000]), first=st.integers(0, 60_000), length=st.integers(0, 9000))
def test_any_stretch_of_a_data_set_is_that_of_its_passes(size: int, first: int, length: int) -> None:
    """Small data sets are shuffled many passes at a time, large ones as they are asked for."""
    mixture = Mixture([size], [1], seed=3)
    whole = Mixture([size], [1], seed=3).take(0, 70_000)
    np.testing.assert_array_equal(mixture.take(first, first + length), whole[first : first + length])
    passes = whole[: 70_000 // size * size].reshape(-1, size)
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.broadcast_to(np.arange(size), passes.shape))
    assert size == 1 or len({tuple(order) for order in passes[:20].tolist()}) > 1
