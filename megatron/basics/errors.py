"""The errors a person can mend, and the exit codes every command shares."""

from __future__ import annotations

import difflib
import os
import select
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TextIO

EXIT_DONE = 0
EXIT_FAULT = 1
EXIT_WRONG_USE = 2
EXIT_STOPPED_AFTER_SAVING = 75  # EX_TEMPFAIL: start the same command again to go on
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_CLOSED_PIPE = 141  # 128 + SIGPIPE
SECONDS_FOR_RANK_0_TO_SPEAK = 1.5


class UserError(Exception):
    """Wrong use or bad input, told in sentences that name the flag or file, the fault and the mend.

    `faults` holds one sentence for each fault, so that a command line is answered whole and not one flag at a time.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class RunFault(Exception):
    """A run that cannot go on for a reason a person should read in one sentence, e.g. a loss that stays NaN."""


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one comes closest to, or None when none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def nearest(name: str, known: Iterable[str]) -> str:
    """` did you mean span_corruption?` for a misspelt name, or an empty string when nothing comes close."""
    match = nearest_name(name, known)
    return f" did you mean {match}?" if match else ""


def exit_on_user_error(main: Callable[[], Any]) -> NoReturn:
    """Run `main` as a command: errors for people are printed without a traceback, a UserError exits with 2.

    Ctrl-C, where a command does not answer it otherwise, ends it without a word and with the shell's own code; so does
    a reader of its output that has seen enough, as in `| head`.
    """
    try:
        status = _status_of(main)
        sys.stdout.flush()  # here, where a closed pipe still has an answer
    except BrokenPipeError:
        closed = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
        if not closed:  # a pipe of the command's own
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in closed:  # Python flushes them once more when it ends
            os.dup2(nowhere, stream.fileno())
        sys.exit(EXIT_CLOSED_PIPE)
    sys.exit(status)


def _status_of(main: Callable[[], Any]) -> int:
    """Exit code of a command, once what a person should read of its end is printed."""
    try:
        status = main()
    except UserError as error:
        _tell(error.faults)
        return EXIT_WRONG_USE
    except RunFault as error:
        _tell([str(error)])
        return EXIT_FAULT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SystemExit:  # --help
        sys.stdout.flush()
        raise
    return status if isinstance(status, int) else EXIT_DONE


def _has_no_reader(stream: TextIO) -> bool:
    """Whether a stream goes into a pipe whose other end is closed."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # not a file: something in Python that collects what is printed
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _tell(faults: Iterable[str]) -> None:
    """Print to stderr. Under torchrun most faults meet every rank: rank 0 speaks for all.

    The others wait until the launcher has noticed that rank 0 is gone and ends them; a rank that met its fault alone
    is still there afterwards, and speaks.
    """
    rank = os.environ.get("RANK", "0")
    if rank != "0":
        time.sleep(SECONDS_FOR_RANK_0_TO_SPEAK)
    for fault in faults:
        print(f"error: {fault}" if rank == "0" else f"error on rank {rank}: {fault}", file=sys.stderr, flush=True)
