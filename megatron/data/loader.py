"""Micro-batches of one rank, prepared ahead by threads, at a position that is a function of the step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from torch import Tensor

from megatron.data.batch_positions import BatchGeometry
from megatron.data.collate import collate
from megatron.data.rows import Rows
from megatron.data.target_positions import with_head_at_targets
from megatron.records.batch import Batch

AHEAD_PER_WORKER = 2


class Loader:
    """Sample numbers in, batches out; the content is a function of (seed, sample number) alone.

    put: sends a host tensor to the device; called in the thread that asks, so that copies go by its stream.
    head_at_targets: batches ask for logits where their loss is alone.

    `num_workers` threads prepare the micro-batches that come next if steps follow one another, at most
    AHEAD_PER_WORKER each; 0 prepares each one when asked. Threads suffice, processes would copy: the heavy parts,
    page faults and array copies, run outside of the interpreter's lock. Nothing but speed depends on their number.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        geometry: BatchGeometry,
        num_workers: int = 0,
        put: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        head_at_targets: bool = False,
    ) -> None:
        self.rows, self.geometry, self.num_workers, self._put = rows, geometry, num_workers, put
        self._head_at_targets = head_at_targets
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="loader") if num_workers else None
        self._pending: deque[Future[Batch]] = deque()
        self._next = 0  # consumed_samples of the micro-batch at the head of `_pending`

    def microbatches(self, consumed_samples: int, num_microbatches: int) -> Iterator[Batch]:
        """The micro-batches of this rank in the step that starts at `consumed_samples`, on the device.

        A step that does not follow the last one (resume, validation from the start) throws away what was prepared.
        Raises, in the step that needs the batch, what `Rows` raised.
        """
        for microbatch in range(num_microbatches):
            first = consumed_samples + microbatch * self.geometry.samples_per_microbatch
            yield self._host_batch(first).map(self._put)

    def close(self) -> None:
        """End the threads; calling it twice does no harm."""
        self._forget()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _host_batch(self, consumed_samples: int) -> Batch:
        if self._pool is None:
            return self._prepare(consumed_samples)
        if consumed_samples != self._next:
            self._forget()
            self._next = consumed_samples
        step = self.geometry.samples_per_microbatch
        while len(self._pending) < max(1, AHEAD_PER_WORKER * self.num_workers):
            self._pending.append(self._pool.submit(self._prepare, self._next + len(self._pending) * step))
        self._next += step
        return self._pending.popleft().result()

    def _prepare(self, consumed_samples: int) -> Batch:
        batch = collate([self.rows[sample] for sample in self.geometry.samples(consumed_samples)])
        return with_head_at_targets(batch) if self._head_at_targets else batch

    def _forget(self) -> None:
        for future in self._pending:
            future.cancel()
        self._pending.clear()
