"""The errors a person can mend, and the exit codes every command shares."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

EXIT_DONE = 0
EXIT_WRONG_USE = 2
EXIT_STOPPED_AFTER_SAVING = 75  # EX_TEMPFAIL: start the same command again to go on


class UserError(Exception):
    """Wrong use or bad input, told in sentences that name the flag or file, the fault and the mend.

    `faults` holds one sentence for each fault, so that a command line is answered whole and not one flag at a time.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def nearest(name: str, known: Iterable[str]) -> str:
    """` did you mean span_corruption?` for a misspelt name, or an empty string when nothing comes close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" did you mean {matches[0]}?" if matches else ""


def exit_on_user_error(main: Callable[[], Any]) -> NoReturn:
    """Run `main` as a command: a UserError is printed without a traceback and exits with 2.

    Under torchrun every rank meets the same fault, so rank 0 alone speaks.
    """
    try:
        status = main()
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":
            for fault in error.faults:
                print(f"error: {fault}", file=sys.stderr, flush=True)
        sys.exit(EXIT_WRONG_USE)
    sys.exit(status if isinstance(status, int) else EXIT_DONE)
