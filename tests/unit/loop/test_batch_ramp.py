"""Batch sizes against megatron-core's calculator, stepped through; and position as a function of the step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from megatron.core.num_microbatches_calculator import RampupBatchsizeNumMicroBatchesCalculator

from megatron.loop.batch_ramp import BatchRamp
from megatron.loop.options import BatchOptions


@st.composite
def ramps(draw: st.DrawFn) -> BatchRamp:
    unit, copies = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rows = unit * copies
    start, increment = rows * draw(st.integers(1, 4)), rows * draw(st.integers(1, 4))
    samples = draw(st.one_of(st.integers(1, 400), st.just(rows * draw(st.integers(1, 50)))))
    final = start + increment * draw(st.integers(1, 6))
    options = BatchOptions(
        micro_batch_size=unit, global_batch_size=final, rampup_batch_size=[start, increment, samples]
    )
    return BatchRamp(options, copies)


@given(ramps())
def test_a_run_takes_megatrons_batches(ramp: BatchRamp) -> None:
    start, increment, samples = ramp.options.rampup_batch_size
    theirs = RampupBatchsizeNumMicroBatchesCalculator(
        global_batch_size=ramp.final_batch_size,
        micro_batch_size=ramp.options.micro_batch_size,
        data_parallel_size=ramp.data_parallel_size,
        decrease_batch_size_if_needed=False,
        rank=1,
        start_global_batch_size=start,
        batch_size_increment=increment,
        ramup_samples=samples,
    )
    consumed = 0
    for iteration in range(120):
        theirs.update(consumed, consistency_check=True)
        size = theirs.get_current_global_batch_size()
        assert ramp.samples_after(iteration) == consumed
        assert ramp.batch_size(consumed) == size
        assert ramp.num_microbatches(consumed) == theirs.get()
        consumed += size
        assert ramp.batch_size_of_last_step(consumed) == size


def test_without_a_ramp_every_batch_is_the_same() -> None:
    ramp = BatchRamp(BatchOptions(micro_batch_size=2, global_batch_size=12), 3)
    assert (ramp.batch_size(0), ramp.num_microbatches(10**9), ramp.samples_after(7)) == (12, 2, 84)
    assert ramp.batch_size_of_last_step(84) == ramp.final_batch_size == 12


def test_the_default_is_one_micro_batch_on_every_rank() -> None:
    ramp = BatchRamp(BatchOptions(micro_batch_size=2), 3)
    assert (ramp.final_batch_size, ramp.final_num_microbatches) == (6, 1)


def test_a_long_ramp_is_not_walked_step_by_step() -> None:
    options = BatchOptions(global_batch_size=4096, rampup_batch_size=[16, 16, 10**12])
    ramp = BatchRamp(options, 1)
    assert ramp.samples_after(10**12) > 10**12
