"""Text to token files: read, encode on all workers, write in order."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from megatron.basics.errors import UserError
from megatron.basics.progress import progress
from megatron.data.encode import BlockEncoder, LineNumbers
from megatron.data.encoder_pool import encode_in_order
from megatron.data.fault_report import FaultReport
from megatron.data.file_ranges import read_work
from megatron.data.input_bytes import check_inputs, total_bytes
from megatron.data.preprocess_options import PreprocessOptions, TextInputOptions
from megatron.data.token_file_facts import TokenFileFacts
from megatron.data.token_file_writer import token_dtype, token_file_writer
from megatron.tokenization.tokenizer import Tokenizer


@dataclass
class Summary:
    """What a run read and wrote. text_bytes: unpacked. seconds: from the first byte read to the last one on disk."""

    files: dict[str, TokenFileFacts] = field(default_factory=dict)  # by prefix
    faults: int = 0
    empty_documents: int = 0
    text_bytes: int = 0
    seconds: float = 0.0

    def lines(self) -> Iterator[str]:
        """One line for each token file and one for the whole run."""
        for prefix, facts in self.files.items():
            yield f"{prefix}.bin: {facts.documents:,} documents, {facts.tokens:,} tokens, {facts.bin_bytes:,} bytes"
        megabytes = self.text_bytes / 1e6
        rate = megabytes / max(self.seconds, 1e-9)
        yield (
            f"read {megabytes:,.1f} MB of text in {self.seconds:.1f} s ({rate:.1f} MB/s), "
            f"left out {self.faults:,} broken and {self.empty_documents:,} empty documents"
        )


def preprocess(text_input: TextInputOptions, options: PreprocessOptions, tokenizer: Tokenizer) -> Summary:
    """Write PREFIX_KEY_document.bin, .idx and .json for each key: all of them, or none.

    The bytes depend on the input and the tokenizer, not on the number of workers. Raises UserError for input that
    cannot be read, a full disk, text without any document, and with `strict` for the first document that is left out;
    RunFault when a worker dies.
    """
    check_inputs(text_input.input)
    workers = options.workers or len(os.sched_getaffinity(0))
    eod_id = tokenizer.eod_id if options.append_eod else None
    encoder = BlockEncoder(tokenizer, tuple(text_input.json_keys), eod_id)
    prefixes = [f"{options.output_prefix}_{key}_document" for key in text_input.json_keys]
    summary = Summary()
    started = time.monotonic()
    with (
        contextlib.ExitStack() as stack,
        progress("preprocess", total_bytes(text_input.input), "B", unit_scale=True) as bar,
        FaultReport(bar, options.strict) as report,
    ):
        dtype = token_dtype(tokenizer.vocabulary_size)
        writers = [stack.enter_context(token_file_writer(prefix, dtype)) for prefix in prefixes]
        line_numbers = LineNumbers()
        with contextlib.closing(encode_in_order(read_work(text_input, bar.advance), encoder, workers)) as encoded:
            for block in encoded:
                report.add(line_numbers.in_file(block))
                summary.empty_documents += block.empty_documents
                summary.text_bytes += block.text_bytes
                for writer, tokens, lengths in zip(writers, block.tokens, block.lengths, strict=True):
                    writer.append(tokens, lengths)
        if not writers[0].documents:
            raise UserError(_nothing_found(text_input, report))
        for prefix, writer in zip(prefixes, writers, strict=True):
            summary.files[prefix] = writer.seal(tokenizer, eod_id)
        summary.faults = report.count
    summary.seconds = time.monotonic() - started
    return summary


def _nothing_found(text_input: TextInputOptions, report: FaultReport) -> str:
    where = text_input.input[0] if len(text_input.input) == 1 else f"{len(text_input.input)} files"
    why = f" Left out: {report.reasons()}." if report.count else ""
    return f"--input {where} holds no document that could be used, so nothing was written.{why}"
