"""Bounds of files that are read whole: one of a stranger may be larger than any memory."""

from __future__ import annotations

from pathlib import Path

from megatron.basics.errors import UserError

SETTINGS_BYTES = 100_000_000  # an index of ten thousand shards has a tenth of it
VOCABULARY_BYTES = 1_000_000_000  # the largest tokenizers have some tens of MB


def refuse_large(path: Path, most: int) -> None:
    """Raise UserError for a file of more than `most` bytes. One that is not there, or cannot be asked, passes."""
    try:
        size = path.stat().st_size
    except OSError:
        return
    if size > most:
        raise UserError(
            f"{path} has {size / 1e9:.3g} GB, and at most {most / 1e9:.3g} GB of its kind are read; download or save "
            "it again."
        )
