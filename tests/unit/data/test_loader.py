"""The loader: what a batch holds depends on the position alone, never on threads or layouts."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from megatron.basics.seeds import seed_for
from megatron.data.batch_positions import BatchGeometry
from megatron.data.loader import AHEAD_PER_WORKER, Loader
from megatron.data.rows import Rows
from megatron.objectives.options import ObjectiveOptions
from megatron.records import visibility
from megatron.records.batch import Batch
from megatron.records.example import SequencePair
from megatron.records.room import Room, Size
from megatron.records.row import Row
from megatron.records.special_tokens import SpecialTokens
from megatron.records.window import Window

LENGTH = 6


class Counting:
    """Sample i is i, i + 1, ...; remembers which samples were asked for; some fail."""

    samples_per_epoch = 1000.0

    def __init__(self, broken: int | None = None, slow: bool = False) -> None:
        self.broken, self.slow = broken, slow
        self.asked: list[int] = []

    def windows(self, sample: int) -> list[Window]:
        self.asked.append(sample)
        if sample == self.broken:
            raise UserError(f"corpus.bin has a bad token in sample {sample}.")
        if self.slow:
            time.sleep(0.002 * (sample % 3))  # later samples are ready before earlier ones
        tokens = np.arange(sample, sample + LENGTH, dtype=np.int32)
        return [Window(tokens=tokens, document_starts=np.zeros(0, np.int32), index=sample)]


class Noisy:
    """An objective whose targets are random numbers."""

    produces: ClassVar[type] = SequencePair
    settings: ClassVar[tuple[str, ...]] = ()
    keeps_text: ClassVar[bool] = False
    is_complete: ClassVar[bool] = False
    marks_documents: ClassVar[bool] = False
    window_length = stride = LENGTH

    @classmethod
    def build(cls, options: ObjectiveOptions, special: SpecialTokens, room: Room) -> Noisy:
        return cls()

    def __call__(self, window: Window, draws: Draws) -> tuple[SequencePair, ...]:
        noise = (draws.words(LENGTH) % np.uint64(1000)).astype(np.int32)
        return (SequencePair(inputs=window.tokens, targets=noise),)

    def size(self, num_tokens: int) -> Size:
        return Size.of(num_tokens, num_tokens)


def arrange(examples: Sequence[SequencePair]) -> Row:
    (example,) = examples
    return Row(
        tokens=example.inputs,
        labels=example.targets,
        loss_mask=np.full(LENGTH, 0.5, np.float32),
        position_ids=np.arange(LENGTH, dtype=np.int32),
        intervals=visibility.documents([int(example.inputs[0]) % 3], LENGTH),
    )


def rows_of(source: Counting) -> Rows:
    return Rows(source=source, objective=Noisy(), arrange=arrange, seed=5)


def loader(source: Counting, num_workers: int = 0, **geometry: int) -> Loader:
    return Loader(
        rows_of(source),
        geometry=BatchGeometry(**{"micro_batch_size": 2, **geometry}),
        num_workers=num_workers,
    )


def content(batches: list[Batch]) -> list[list[object]]:
    return [
        [t.tolist() for t in (b.tokens, b.labels, b.loss_mask, b.position_ids, b.visibility.intervals)] for b in batches
    ]


def steps(loaded: Loader) -> list[list[object]]:
    """Two steps that follow one another, one elsewhere, and the first again."""
    found: list[list[object]] = []
    for consumed, number in ((0, 3), (6, 2), (100, 2), (0, 3)):
        found += content(list(loaded.microbatches(consumed, number)))
    return found


@pytest.mark.parametrize("num_workers", [1, 4])
def test_threads_change_nothing(num_workers: int) -> None:
    with loader(Counting()) as inline, loader(Counting(slow=True), num_workers) as threaded:
        assert steps(inline) == steps(threaded)


def test_batches_hold_the_rows_in_the_types_of_the_record() -> None:
    with loader(Counting()) as loaded:
        (batch,) = loaded.microbatches(10, 1)
    assert batch.tokens.tolist() == [[10, 11, 12, 13, 14, 15], [11, 12, 13, 14, 15, 16]]
    for row, sample in enumerate((10, 11)):
        expected = Draws(seed_for(5, "objective", sample)).words(LENGTH) % np.uint64(1000)
        assert batch.labels[row].tolist() == expected.tolist()
        assert batch.visibility.intervals[row].tolist() == visibility.documents([sample % 3], LENGTH).tolist()
    assert [t.dtype for t in (batch.tokens, batch.labels, batch.loss_mask, batch.position_ids)] == [
        torch.int64,
        torch.int64,
        torch.float32,
        torch.int64,
    ]
    assert batch.visibility.intervals.dtype == torch.int32 and batch.visibility.num_keys == LENGTH
    assert not batch.visibility.is_causal


def test_a_head_at_targets_reads_them_alone() -> None:
    rows = rows_of(Counting())
    few = replace(rows, arrange=lambda examples: replace(arrange(examples), loss_mask=np.float32([0, 0, 1, 0, 0, 1])))
    with Loader(few, geometry=BatchGeometry(micro_batch_size=2), head_at_targets=True) as loaded:
        (batch,) = loaded.microbatches(10, 1)
    assert batch.head_positions is not None
    assert batch.head_positions.tolist() == [[2, 2, 5, 5], [0, 1, 0, 1]]


def test_plainly_causal_batches_say_so() -> None:
    with loader(Counting(), micro_batch_size=1) as loaded:
        causal = [batch.visibility.is_causal for batch in loaded.microbatches(0, 6)]
    assert causal == [True, False, False, True, False, False]  # documents begin at position sample % 3


@pytest.mark.parametrize(("micro", "ranks"), [(1, 1), (1, 2), (2, 2), (4, 1)])
def test_layouts_share_the_same_global_batch(micro: int, ranks: int) -> None:
    rows: dict[int, object] = {}
    for rank in range(ranks):
        with loader(Counting(), 1, micro_batch_size=micro, data_parallel_size=ranks, data_parallel_rank=rank) as loaded:
            for batch in loaded.microbatches(8, 8 // (micro * ranks)):
                rows |= {
                    int(tokens[0]): (tokens, labels)
                    for tokens, labels in zip(batch.tokens.tolist(), batch.labels.tolist(), strict=True)
                }
    with loader(Counting(), micro_batch_size=8) as whole:
        (batch,) = whole.microbatches(8, 1)
    assert rows == {
        int(row[0]): (row, labels) for row, labels in zip(batch.tokens.tolist(), batch.labels.tolist(), strict=True)
    }


def test_prefetch_is_bounded_and_goes_on_across_steps() -> None:
    source = Counting()
    with loader(source, 2) as loaded:
        list(loaded.microbatches(0, 2))
        deadline = time.monotonic() + 10
        ahead = 2 * (2 + AHEAD_PER_WORKER * 2 - 1)  # of the two micro-batches asked for, plus what is ahead of the last
        while len(source.asked) < ahead and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert sorted(source.asked) == list(range(ahead))
        list(loaded.microbatches(4, 2))  # the next step finds them ready: nothing is made twice
    assert len(set(source.asked)) == len(source.asked)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_comes_with_its_own_words_in_the_step_that_needs_the_batch(num_workers: int) -> None:
    with loader(Counting(broken=5), num_workers) as loaded:
        assert len(list(loaded.microbatches(0, 2))) == 2
        with pytest.raises(UserError, match="bad token in sample 5"):
            list(loaded.microbatches(4, 1))


def test_threads_are_gone_after_close() -> None:
    before = threading.active_count()
    loaded = loader(Counting(slow=True), 3)
    list(loaded.microbatches(0, 2))
    assert threading.active_count() > before
    loaded.close()
    loaded.close()
    assert threading.active_count() == before


def test_every_tensor_is_put_on_the_device_in_the_thread_that_asks() -> None:
    seen: list[tuple[torch.dtype, str]] = []

    def put(tensor: torch.Tensor) -> torch.Tensor:
        seen.append((tensor.dtype, threading.current_thread().name))
        return tensor + 1

    geometry = BatchGeometry(micro_batch_size=1)
    with Loader(rows_of(Counting()), geometry=geometry, num_workers=2, put=put) as loaded:
        (batch,) = loaded.microbatches(0, 1)
    assert {name for _, name in seen} == {threading.current_thread().name} and len(seen) == 5
    assert batch.tokens[0].tolist() == [1, 2, 3, 4, 5, 6] and batch.visibility.intervals[0, 0].tolist() == [1, 2]
