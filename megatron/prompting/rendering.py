"""Renders a data set through its templates in processes of their own, with a limit of seconds and memory for each.

WorkLimit stops what a template repeats. A single operation of Python that takes for ever, e.g. a comparison of two huge
nested lists, can be stopped from outside alone: no signal or thread of its own process gets a turn. So examples go to
workers; each notes in shared memory which one it is at, and the parent ends a worker that stays at one for too long.
Nothing of the parent's signals is touched.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import struct
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import cycle, islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

from megatron.basics.errors import UserError
from megatron.prompting.renderer import Renderer
from megatron.prompting.template import Example, Prompted, Template

SECONDS = 10.0
MEMORY = 2 * 2**30  # bytes that a worker may take beyond what it started with
EXAMPLES_AT_A_TIME = 32
CHUNKS_AHEAD = 2  # for each worker: one that it renders while what became of the other is used
_PLACE = struct.Struct("=qqq")  # steps begun, template, example
_USE = -1  # in the place of a template: the prompts are rendered and being used


class UseFault(RuntimeError):
    """What `use` raised in a worker and no template or data is to blame for; its text is the worker's traceback."""


@dataclass(frozen=True, slots=True)
class ExampleToRender:
    """An example, its number in the split, and the numbers of the templates that it goes through."""

    index: int
    example: Example
    templates: Sequence[int]


# What a worker makes of an example and its prompts, in the order of its templates. It has to be pickled.
Use = Callable[[ExampleToRender, tuple[Prompted | None, ...]], Any]


@dataclass(frozen=True)
class RenderedExample:
    """An example through all templates in their order: a Prompted, or None where a template leaves it out."""

    index: int
    prompted: tuple[Prompted | None, ...]


def render_examples(
    templates: Sequence[Template],
    examples: Iterable[Example],
    *,
    seed: int = 1234,
    workers: int = 1,
    seconds: float = SECONDS,
    memory: int = MEMORY,
) -> Generator[RenderedExample, None, None]:
    """Every example through every template, in the order of the examples, whatever the number of workers.

    `examples` is taken as it is needed. Raises UserError that names template and example for what Renderer refuses, and
    for a rendering that takes more than `seconds`, or more than `memory` bytes, or ends its process.
    """
    everywhere = range(len(templates))
    work = (ExampleToRender(index, example, everywhere) for index, example in enumerate(examples))
    answers = render_and_use(templates, work, _parts, seed=seed, workers=workers, seconds=seconds, memory=memory)
    with closing(answers):
        for index, row in enumerate(answers):
            yield RenderedExample(index, tuple(None if parts is None else Prompted(*parts) for parts in row))


def render_and_use(
    templates: Sequence[Template],
    examples: Iterable[ExampleToRender],
    use: Use,
    *,
    seed: int = 1234,
    workers: int = 1,
    seconds: float = SECONDS,
    memory: int = MEMORY,
) -> Generator[Any, None, None]:
    """What `use` makes of each example in the worker that has rendered it, in the order of the examples.

    Each example goes through its own choice of the templates. `use` has the limits of a rendering; a UserError that it
    raises ends all. Raises UserError as `render_examples` does, and UseFault for any other error of `use`.
    """
    renderers = [Renderer(template, seed) for template in templates]
    crew: list[_Worker] = []
    pending: deque[_Worker] = deque()
    try:
        _hire(crew, workers, lambda: _Worker(renderers, use, memory))
        for worker, chunk in zip(cycle(crew), _chunks(examples), strict=False):
            if len(pending) >= CHUNKS_AHEAD * workers:
                yield from pending.popleft().answer(seconds)
            worker.give(chunk)
            pending.append(worker)
        while pending:
            yield from pending.popleft().answer(seconds)
    finally:
        for worker in crew:
            worker.end()


def _hire(crew: list[_Worker], workers: int, new: Callable[[], _Worker]) -> None:
    """Fill the crew one by one, so that those that were started are known where one cannot be."""
    try:
        while len(crew) < workers:
            crew.append(new())
    except OSError as error:
        raise UserError(
            f"of {workers} workers {len(crew)} could be started ({error.strerror or error}); take fewer (--workers), "
            "or raise the limit (ulimit -n for files, ulimit -u for processes)."
        ) from error


def _chunks(examples: Iterable[ExampleToRender]) -> Iterator[list[ExampleToRender]]:
    source = iter(examples)
    while chunk := [*islice(source, EXAMPLES_AT_A_TIME)]:
        yield chunk


def _parts(example: ExampleToRender, row: tuple[Prompted | None, ...]) -> tuple[tuple[Any, ...] | None, ...]:
    """Plain tuples, which are quicker to send."""
    return tuple(None if one is None else (one.inputs, one.targets, one.choices) for one in row)


@dataclass
class _Worker:
    """A process that renders chunks in the order in which it is given them."""

    renderers: Sequence[Renderer]
    use: Use
    memory: int
    _unsent: deque[list[ExampleToRender]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._place = mmap.mmap(-1, _PLACE.size)  # anonymous: shared with the child alone
        context = get_context("fork")  # forked workers share what is compiled, and start in milliseconds
        self._connection, theirs = context.Pipe()
        arguments = (theirs, self._connection, self._place, self.renderers, self.use, self.memory)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._is_busy = False

    def give(self, chunk: list[ExampleToRender]) -> None:
        """Queue a chunk. One at a time is on its way: with more, both sides could wait for the other to read."""
        self._unsent.append(chunk)
        self._send()

    def answer(self, seconds: float) -> list[Any]:
        """What became of the oldest chunk; raises UserError where its rendering has to be stopped."""
        seen: tuple[int, ...] = ()
        since = time.monotonic()
        while not self._connection.poll(min(seconds / 4, 0.25)):
            place = self._at()
            if place != seen:
                seen, since = place, time.monotonic()
            elif place[0] and time.monotonic() - since > seconds:
                self._stop(f"takes more than {seconds:g} seconds")
        try:
            fault, result = self._connection.recv()
        except (EOFError, ConnectionError):
            self._stop("ended the process that rendered it")
        self._is_busy = False
        if fault is not None:
            raise fault(*result)
        self._send()
        return result

    def end(self) -> None:
        """Kill what is left; a worker that waits has nothing to lose."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _send(self) -> None:
        if self._unsent and not self._is_busy:
            self._is_busy = True
            with suppress(ConnectionError):  # it has died; `answer` says where
                self._connection.send(self._unsent.popleft())

    def _stop(self, fault: str) -> NoReturn:
        _, number, example = self._at()
        template = self.renderers[number].template
        title = template.title if number != _USE else f"what is made of the prompts of {template.data_set}"
        raise UserError(f"{title} {fault} on example {example}, so it was stopped; mend it or leave it out.")

    def _at(self) -> tuple[int, ...]:
        """Steps begun, and template and example of the last one."""
        return _PLACE.unpack(self._place[: _PLACE.size])


def _work(
    connection: Connection,
    parents: Connection,
    place: mmap.mmap,
    renderers: Sequence[Renderer],
    use: Use,
    memory: int,
) -> None:
    """A worker's life: chunks in, answers out, until the parent is gone."""
    parents.close()  # or the end of the parent would never be read
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit_memory(memory)
    try:
        begun = 0
        while True:
            answer = []
            for example in connection.recv():
                row = []
                for number in example.templates:
                    begun += 1
                    _PLACE.pack_into(place, 0, begun, number, example.index)
                    row.append(renderers[number].render(example.example, example.index))
                begun += 1
                _PLACE.pack_into(place, 0, begun, _USE, example.index)
                answer.append(_used(use, example, tuple(row)))
            connection.send((None, answer))
    except UserError as error:
        connection.send((UserError, error.faults))
    except UseFault as error:
        connection.send((UseFault, error.args))
    except (EOFError, ConnectionError):
        pass


def _used(use: Use, example: ExampleToRender, row: tuple[Prompted | None, ...]) -> Any:
    try:
        return use(example, row)
    except UserError:
        raise
    except MemoryError:
        raise UserError(
            f"the prompts of example {example.index} take more memory than a worker may have; shorten it."
        ) from None
    except Exception as error:
        raise UseFault(f"on example {example.index}:\n{traceback.format_exc()}") from error


def _limit_memory(extra: int) -> None:
    """Let the process have `extra` bytes more than it has; an allocation beyond is a MemoryError in the template."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:  # not Linux
        return
    most = pages * os.sysconf("SC_PAGE_SIZE") + extra
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _end_with_parent() -> None:
    """Leave when the parent is gone, e.g. by SIGKILL."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
