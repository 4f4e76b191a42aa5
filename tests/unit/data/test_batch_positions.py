"""Who takes which sample: the step's set of samples is the same for every layout and micro-batch size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from megatron.data.batch_positions import BatchGeometry


@given(consumed=st.integers(0, 2**40), micro=st.integers(1, 6), ranks=st.integers(1, 6), microbatches=st.integers(1, 5))
def test_ranks_share_out_the_whole_step(consumed: int, micro: int, ranks: int, microbatches: int) -> None:
    taken: list[int] = []
    for rank in range(ranks):
        geometry = BatchGeometry(micro_batch_size=micro, data_parallel_size=ranks, data_parallel_rank=rank)
        for number in range(microbatches):
            samples = geometry.samples(consumed, number)
            assert len(samples) == micro
            # a later micro-batch is the first one of a step that starts later: steps follow without a seam
            assert samples == geometry.samples(consumed + number * geometry.samples_per_microbatch)
            taken += samples
    assert sorted(taken) == list(range(consumed, consumed + micro * ranks * microbatches))


def test_micro_batches_are_dealt_round() -> None:
    second = BatchGeometry(micro_batch_size=2, data_parallel_size=3, data_parallel_rank=1)
    assert [list(second.samples(100, number)) for number in range(2)] == [[102, 103], [108, 109]]
