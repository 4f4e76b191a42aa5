"""A data set of examples: two token files, document i of one the inputs and of the other the targets of example i."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron.basics.errors import UserError
from megatron.data.pair_paths import END, PAIR_SUFFIXES, REMAKE, pair_fault
from megatron.data.token_file import TokenFile, open_token_file
from megatron.data.token_file_facts import TokenFileFacts
from megatron.records.room import Room

DOCUMENTS_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class PairFile:
    """An open data set; examples are numbered from 0."""

    prefix: str
    inputs: TokenFile
    targets: TokenFile

    @property
    def num_examples(self) -> int:
        """Documents of each file."""
        return self.targets.index.num_documents

    def read(self, example: int, room: Room) -> tuple[NDArray[np.int32], int]:
        """(inputs and targets one behind the other: int32 [i + t], i), with inputs cut as `sizes` says.

        Raises UserError when the tokens are not of the tokenizer's vocabulary (see `TokenFile.read`).
        """
        targets = _document(self.targets, example)
        begin, end = (self.inputs.index.document_offset(example + k) for k in (0, 1))
        most = min(room.inputs, room.total - len(targets) - END)
        inputs = self.inputs.read(max(begin, end - most), end)
        return np.concatenate([inputs, targets]), len(inputs)

    def sizes(self, examples: range, room: Room) -> tuple[NDArray[np.int64], int]:
        """(inputs and targets of each of some examples in a row: int64 [n, 2], how many inputs are cut).

        Targets count with their end token. Inputs that do not fit beside them are cut at their beginning: what is
        asked, and the cue to answer, stand at the end of most prompts. Raises UserError where targets alone do not fit.

        In rows without start tokens (`room.overlap`) the last of the inputs predicts the first target: one always
        stays, and examples without any are refused.
        """
        inputs = self.inputs.index.document_lengths(examples)
        targets = self.targets.index.document_lengths(examples) + END
        limit = min(room.targets, room.total - room.overlap)
        if room.overlap and not inputs.all():
            first = examples[int(np.argmin(inputs > 0))]
            raise UserError(
                f"{self.prefix}: example {first:,} has no inputs, so that nothing would predict its first target; add "
                "--begin-with-start-token, or leave the example out."
            )
        if (targets > limit).any():
            first = int(np.argmax(targets > limit))
            flag = "--decoder-seq-length" if room.is_split else "--seq-length"
            raise UserError(
                f"{self.prefix}: the target of example {examples[first]:,} and its end token are {targets[first]:,} "
                f"tokens, and a row takes {limit:,}; raise {flag}, or leave the example out."
            )
        most = np.minimum(room.inputs, room.total - targets)
        return np.stack([np.minimum(inputs, most), targets], axis=1), int((inputs > most).sum())


def open_pair_file(
    prefix: str, *, vocabulary_size: int | None = None, tokenizer_fingerprint: str | None = None
) -> PairFile:
    """Open PREFIX_inputs and PREFIX_targets, each a pair of .bin and .idx.

    Raises UserError, one sentence with file and mend, for what `open_token_file` refuses in either, when they hold
    different numbers of examples, and when either has end tokens: none stands between inputs and targets, and the one
    behind targets is put there by training.
    """
    fault = pair_fault(prefix)
    if fault:
        raise UserError(f"{prefix} {fault}")
    inputs, targets = (
        open_token_file(prefix + suffix, vocabulary_size=vocabulary_size, tokenizer_fingerprint=tokenizer_fingerprint)
        for suffix in PAIR_SUFFIXES
    )
    if inputs.index.num_documents != targets.index.num_documents:
        raise UserError(
            f"{inputs.path} holds {inputs.index.num_documents:,} examples and {targets.path} "
            f"{targets.index.num_documents:,}; {REMAKE}"
        )
    for file, suffix, why in (
        (inputs, PAIR_SUFFIXES[0], "no end token stands between inputs and targets"),
        (targets, PAIR_SUFFIXES[1], "training adds the end tokens of targets itself"),
    ):
        facts = TokenFileFacts.read(prefix + suffix)
        if facts is not None and facts.eod_id is not None:
            raise UserError(f"{file.path} was made with --append-eod, and {why}; {REMAKE}")
    return PairFile(prefix, inputs, targets)


def _document(file: TokenFile, number: int) -> NDArray[np.int32]:
    return file.read(file.index.document_offset(number), file.index.document_offset(number + 1))
