"""Which samples a data-parallel rank takes: a function of the position in the run and of nothing that happened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BatchGeometry:
    """How samples are dealt to data-parallel ranks.

    A step that starts at `consumed_samples` with a global batch of B takes the samples [consumed, consumed + B). They
    are dealt in micro-batches: first one to each rank, then the next one to each rank. So the set of samples of a step
    is the same for every micro-batch size and number of ranks, and steps follow one another without a seam.
    """

    micro_batch_size: int
    data_parallel_size: int = 1
    data_parallel_rank: int = 0

    @property
    def samples_per_microbatch(self) -> int:
        """Samples that all ranks together take in one micro-batch."""
        return self.micro_batch_size * self.data_parallel_size

    def samples(self, consumed_samples: int, microbatch: int = 0) -> range:
        """The samples of this rank in a micro-batch, counted 0, 1, ... from `consumed_samples`."""
        begin = consumed_samples + microbatch * self.samples_per_microbatch
        begin += self.data_parallel_rank * self.micro_batch_size
        return range(begin, begin + self.micro_batch_size)
