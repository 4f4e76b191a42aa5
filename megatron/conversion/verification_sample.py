"""Real text as the rows on which two forms of a model are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.basics.errors import UserError
from megatron.conversion.described_model import DescribedModel
from megatron.records.example import RunningText, SequencePair
from megatron.records.row import Row

NUM_ROWS = 4
ROW_LENGTH = 256
DEFAULT_NAME = "the documentation of Python"
CHARACTERS = 40_000
SHORTEST = 2  # tokens: one to read and one to predict


@dataclass(frozen=True)
class SampleText:
    """name: for reports."""

    name: str
    text: str


@dataclass(frozen=True, eq=False)
class Sample:
    """rows: without padding, all of one length, arranged as in training. prefix: positions that are read both ways."""

    rows: tuple[Row, ...]
    prefix: int

    @property
    def row_length(self) -> int:
        """Positions of a row, of an encoder-decoder those of the decoder."""
        return len(self.rows[0].tokens)


def sample_text(path: str | None) -> SampleText:
    """The text of `--verify-text`, else some of Python's documentation. Raises UserError where it cannot be read."""
    if path is None:
        return SampleText(DEFAULT_NAME, "\n".join(topics.values())[:CHARACTERS])
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(CHARACTERS)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"--verify-text {path} cannot be read: {reason}.") from error
    if not text.strip():
        raise UserError(f"--verify-text {path} is empty; give a file with text.")
    return SampleText(Path(path).name, text)


def cut_sample(tokens: Sequence[int], described: DescribedModel) -> Sample:
    """Rows from the ids of a text: up to NUM_ROWS of ROW_LENGTH positions, fewer or shorter where the text ends.

    A prefix decoder is given the first half of each row; an encoder-decoder reads one piece of the text and predicts
    the next. Raises UserError for a text of less than two tokens.
    """
    if len(tokens) < SHORTEST:
        raise UserError(f"--verify-text has {len(tokens)} tokens, too few to predict any; give a longer text.")
    has_encoder = described.architecture == "encoder_decoder"
    ends = has_encoder and described.ends_inputs and described.end_token is not None
    longest = min(ROW_LENGTH, described.max_positions)
    # A decoder's last token is a label alone, unless the start token has pushed all others one position on.
    overlap = 0 if has_encoder or described.begins_with_start_token else 1
    if has_encoder:
        length = min(longest, len(tokens) // 2 + ends)
        num_inputs, per_row = length - ends, 2 * (length - ends)
    else:
        length = min(longest, len(tokens) - overlap)
        num_inputs, per_row = (length // 2 if described.architecture == "prefix_decoder" else 0), length + overlap
    rules = RowRules(
        seq_length=length,
        decoder_seq_length=length,
        end_token=described.end_token or 0,  # where there is none it stands nowhere
        start_token=(described.pad_token if has_encoder else described.start_token) or 0,
        begins_with_start_token=described.begins_with_start_token,
    )
    architecture = ARCHITECTURES[described.architecture]()
    rows = []
    for first in range(0, min(len(tokens), NUM_ROWS * per_row) - per_row + 1, per_row):
        part = np.asarray(tokens[first : first + per_row], np.int32)
        pair = SequencePair(part[:num_inputs], part[num_inputs:], is_complete=ends)
        rows.append(architecture.arrange([pair if num_inputs else RunningText(part[:0], part)], rules))
    return Sample(tuple(rows), prefix=int(rows[0].intervals[0, 1]) if num_inputs and not has_encoder else 0)
