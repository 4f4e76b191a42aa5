"""The command that turns text into token files."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

from megatron.basics.option import Options
from megatron.cli.flags import parse
from megatron.data.preprocess_options import PreprocessOptions, TextInputOptions

DESCRIPTION = "Turn text into Megatron token files: PREFIX_KEY_document.bin, .idx and .json for each JSON key."
SECTIONS: dict[str, type[Options]] = {"text_input": TextInputOptions, "output": PreprocessOptions}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises UserError and RunFault."""
    sections = parse(sys.argv[1:] if argv is None else argv, SECTIONS, description=DESCRIPTION)
    from megatron.data.preprocess import preprocess  # --help does without numpy and the tokenizer libraries
    from megatron.tokenization.tokenizer import load_tokenizer

    options: PreprocessOptions = sections["output"]
    tokenizer = load_tokenizer(options.tokenizer_type, options.tokenizer_model)
    with leave_on_signals(signal.SIGTERM, signal.SIGINT):
        summary = preprocess(sections["text_input"], options, tokenizer)
    for line in summary.lines():
        print(line)


@contextlib.contextmanager
def leave_on_signals(*numbers: signal.Signals) -> Iterator[None]:
    """Inside the block these signals end the process through its open files."""
    before = {number: signal.signal(number, _stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    """Leave through the open files, so that they take their temporary ones along."""
    print(f"stopped by {signal.Signals(number).name}", file=sys.stderr)
    sys.exit(128 + number)
