"""The command that learns a vocabulary from text."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence

from megatron.basics.option import Options
from megatron.cli.flags import parse
from megatron.data.preprocess_options import TextInputOptions
from megatron.tokenization.options import TrainTokenizerOptions

DESCRIPTION = (
    "Learn a SentencePiece vocabulary: pieces with byte fallback, the special tokens pad, end, unknown, mask, "
    "classification and separator, and 100 sentinels in T5's order."
)
SECTIONS: dict[str, type[Options]] = {"text_input": TextInputOptions, "vocabulary": TrainTokenizerOptions}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises UserError."""
    sections = parse(sys.argv[1:] if argv is None else argv, SECTIONS, description=DESCRIPTION)
    from megatron.tokenization.train import train_to_files  # --help does without sentencepiece

    options: TrainTokenizerOptions = sections["vocabulary"]
    train_to_files(_texts(sections["text_input"]), options)
    print(f"{options.output_prefix}.model: {options.vocab_size:,} ids, {options.model_type}")


def _texts(options: TextInputOptions) -> Iterator[str]:
    """All texts of the input, with the progress of reading on stderr."""
    from megatron.basics.progress import progress
    from megatron.data.documents import documents_of
    from megatron.data.fault_report import FaultReport
    from megatron.data.input_bytes import check_inputs, total_bytes
    from megatron.data.text_input import read_inputs

    check_inputs(options.input)
    with progress("read", total_bytes(options.input), "B", unit_scale=True) as bar, FaultReport(bar) as report:
        for block in read_inputs(options, bar.advance):
            found = documents_of(block, options.json_keys)
            report.add(found.faults)
            yield from itertools.chain(*found.columns)
