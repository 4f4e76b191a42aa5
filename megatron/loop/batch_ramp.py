"""The size of each global batch, and with it the place of each step in the data: functions of the step alone."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from functools import cached_property

from megatron.loop.options import BatchOptions


@dataclass(frozen=True)
class Phase:
    """Steps of one size: the first of them follows `iterations` steps and `samples` samples."""

    iterations: int
    samples: int
    batch_size: int


@dataclass(frozen=True)
class BatchRamp:
    """Global batch sizes, as Megatron's --rampup-batch-size START INCREMENT SAMPLES defines them.

    The size after `consumed_samples` samples is START + k x INCREMENT, where k is the number of whole shares of SAMPLES
    consumed so far and the shares are as many as there are increments up to --global-batch-size.
    """

    options: BatchOptions
    data_parallel_size: int

    @property
    def final_batch_size(self) -> int:
        """Samples of a step after the ramp."""
        return self.options.global_batch_size or self.options.micro_batch_size * self.data_parallel_size

    @property
    def final_num_microbatches(self) -> int:
        """Micro-batches of a step on each data-parallel rank after the ramp."""
        return self._microbatches_of(self.final_batch_size)

    def batch_size(self, consumed_samples: int) -> int:
        """Samples of the step that follows `consumed_samples` samples."""
        if not self.options.rampup_batch_size:
            return self.final_batch_size
        start, increment, ramp_samples = self.options.rampup_batch_size
        share = ramp_samples / ((self.final_batch_size - start) // increment)
        # The same floating-point division as Megatron's, so that a run begun there goes on here at the same sample.
        return min(start + int(consumed_samples / share) * increment, self.final_batch_size)

    def num_microbatches(self, consumed_samples: int) -> int:
        """Micro-batches, on each data-parallel rank, of the step that follows `consumed_samples` samples."""
        return self._microbatches_of(self.batch_size(consumed_samples))

    def samples_after(self, iterations: int) -> int:
        """Samples consumed by the first `iterations` steps of a run."""
        phase = self._phases[bisect.bisect_right(self._phases, iterations, key=lambda phase: phase.iterations) - 1]
        return phase.samples + (iterations - phase.iterations) * phase.batch_size

    def batch_size_of_last_step(self, consumed_samples: int) -> int:
        """Samples of the step that ended at `consumed_samples` > 0."""
        later = bisect.bisect_left(self._phases, consumed_samples, key=lambda phase: phase.samples)
        return self._phases[max(later - 1, 0)].batch_size

    @cached_property
    def _phases(self) -> list[Phase]:
        iterations = samples = 0
        phases = [Phase(0, 0, self.batch_size(0))]
        while (size := phases[-1].batch_size) != self.final_batch_size:
            steps = self._steps_of_this_size(samples, size)
            iterations, samples = iterations + steps, samples + steps * size
            phases.append(Phase(iterations, samples, self.batch_size(samples)))
        return phases

    def _steps_of_this_size(self, samples: int, size: int) -> int:
        """Steps from `samples` on until another size is due: bisection, since the size never falls."""
        most = (self.options.rampup_batch_size[2] - samples) // size + 2
        return bisect.bisect_left(
            range(most), True, lo=1, key=lambda step: self.batch_size(samples + step * size) != size
        )

    def _microbatches_of(self, batch_size: int) -> int:
        return batch_size // (self.options.micro_batch_size * self.data_parallel_size)
