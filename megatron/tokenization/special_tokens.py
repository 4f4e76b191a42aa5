"""Names of the tokens that are no text, and how to find them in a vocabulary."""

from __future__ import annotations

import itertools
from collections.abc import Callable

PAD = "<pad>"
END = "</s>"
UNKNOWN = "<unk>"
MASK = "<mask>"
CLASSIFICATION = "<cls>"
SEPARATOR = "<sep>"
NUM_SENTINELS = 100

MASK_NAMES = (MASK, "[MASK]")
CLASSIFICATION_NAMES = (CLASSIFICATION, "[CLS]")
SEPARATOR_NAMES = (SEPARATOR, "[SEP]")


def sentinel_name(number: int) -> str:
    """Name of the sentinel that marks the gap `number`, counted from 0, as in T5's vocabulary."""
    return f"<extra_id_{number}>"


def find_sentinels(id_of: Callable[[str], int | None]) -> tuple[int, ...]:
    """Ids of <extra_id_0>, <extra_id_1>, ... up to the first that is missing."""
    ids = (id_of(sentinel_name(number)) for number in itertools.count())
    return tuple(token for token in itertools.takewhile(lambda token: token is not None, ids) if token is not None)


def find_first(id_of: Callable[[str], int | None], names: tuple[str, ...]) -> int | None:
    """Id of the first name that the vocabulary has."""
    return next((token for name in names if (token := id_of(name)) is not None), None)
