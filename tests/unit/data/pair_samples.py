"""Data sets of examples whose tokens say which data set and example they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from token_file_samples import write_token_file


def write_pairs(prefix: Path, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> str:
    """Write the inputs and targets of examples; gives back the prefix."""
    for suffix, side in (("_inputs", 0), ("_targets", 1)):
        write_token_file(Path(f"{prefix}{suffix}"), [[list(pair[side])] for pair in pairs])
    return str(prefix)


def write_marked_pairs(prefix: Path, number: int, lengths: Sequence[tuple[int, int]]) -> str:
    """Examples of these lengths, whose every token is 1000 x (number + 1) + the example's number."""
    marks = [1000 * (number + 1) + example for example in range(len(lengths))]
    pairs = [([mark] * i, [mark] * t) for mark, (i, t) in zip(marks, lengths, strict=True)]
    return write_pairs(prefix, pairs)
