"""Worker processes that encode text; results come in the order of the text, whatever the number of workers."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait

from megatron.basics.errors import RunFault
from megatron.data.encode import BlockEncoder, EncodedBlock
from megatron.data.file_ranges import FileRange
from megatron.data.text_input import TextBlock

BLOCKS_AHEAD_PER_WORKER = 4
BYTES_AHEAD = 256 * 2**20  # a few very long documents must not fill the memory

_encoder: BlockEncoder | None = None  # of this worker process


def encode_in_order(
    work: Iterable[TextBlock | FileRange], encoder: BlockEncoder, workers: int
) -> Generator[EncodedBlock, None, None]:
    """Each block or range of a file encoded, in the order of `work`.

    `work` is taken as it is needed, so that memory stays bounded. Raises RunFault when a worker process dies.
    """
    # Forked workers share the vocabulary that is loaded already, and start in milliseconds.
    pool = ProcessPoolExecutor(workers, get_context("fork"), _start_worker, (encoder,))
    pending: deque[tuple[int, Future[EncodedBlock]]] = deque()
    bytes_ahead = 0
    try:
        for item in work:
            size = item.end - item.start if isinstance(item, FileRange) else len(item.data)
            while pending and (len(pending) >= workers * BLOCKS_AHEAD_PER_WORKER or bytes_ahead + size > BYTES_AHEAD):
                size_before, future = pending.popleft()
                bytes_ahead -= size_before
                yield future.result()
            pending.append((size, pool.submit(_encode, item)))
            bytes_ahead += size
        while pending:
            yield pending.popleft()[1].result()
    except BrokenProcessPool as error:
        raise RunFault(
            "a worker process died, so nothing was written; where the memory ran out, use fewer --workers."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(encoder: BlockEncoder) -> None:
    global _encoder
    _encoder = encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread for each worker, as --workers says
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave when the parent is gone, e.g. by SIGKILL; a worker would wait for its next block for ever."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _encode(item: TextBlock | FileRange) -> EncodedBlock:
    assert _encoder is not None
    return _encoder(item)
