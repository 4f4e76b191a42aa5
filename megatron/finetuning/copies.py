"""Whether a text of training stands in evaluation too: fingerprints of normalised texts.

An example is a copy when its own texts are those of an example of evaluation, whatever its label. A prompt is one when
its inputs and target are those of a prompt of evaluation: the same inputs with another target may be a different
question, because templates that make the model write ask many examples in the same words.

A text that is a part of an example is no copy: two BoolQ questions about one passage are two examples. Nor are
paraphrases; nobody finds those with fingerprints.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.prompting.template import Prompted

FINGERPRINT_BYTES = 8  # of T0's 17 million prompts against as many of evaluation, one in 10^5 mixtures has a chance hit
FINGERPRINTS = np.dtype("<u8")
AT_THE_EDGE = (
    ".,;:!?\"'`()[]{}\u2026\u2018\u2019\u201c\u201d\u00ab\u00bb"  # of words; not what arithmetic is written with
)
_BETWEEN = "\x1f"


def normalised(text: str) -> str:
    """A text without what spelling may vary: case, spaces, punctuation around words, Unicode's several forms."""
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return " ".join(filter(None, (word.strip(AT_THE_EDGE) for word in words)))


def texts_of(example: Mapping[str, Any]) -> list[str]:
    """What an example says: its normalised texts, sorted, so that names and order of columns do not count.

    Texts of one word count in lists alone (answer choices): those of a column are labels and numbers of examples. An
    example with nothing else has all of its texts.
    """
    return sorted(filter(None, map(normalised, texts_in_order(example))))


def texts_in_order(example: Mapping[str, Any]) -> list[str]:
    """The texts of `texts_of` as they are written, in the order of the columns."""
    found = [*_texts(example.values())]
    chosen = [text for text, is_listed in found if (len(text) > 1 if is_listed else " " in text)]
    return chosen or [text for text, _ in found]


def fingerprint_of_example(example: Mapping[str, Any]) -> bytes | None:
    """Of all that an example says; None for one that says nothing."""
    texts = texts_of(example)
    return _digest(b"example", _BETWEEN.join(texts)) if texts else None


def fingerprint_of_prompt(prompted: Prompted) -> bytes:
    """Of inputs and target, the first of several."""
    return _digest(b"prompt", _BETWEEN.join(map(normalised, (prompted.inputs, prompted.targets[0]))))


class KnownTexts:
    """The fingerprints of all that is evaluated on, each with what it belongs to."""

    def __init__(self, parts: Sequence[tuple[str, NDArray[np.uint64]]]) -> None:
        """parts: (name, fingerprints [n]) of each data set."""
        self.names = [name for name, _ in parts]
        joined = np.concatenate([np.zeros(0, FINGERPRINTS), *(fingerprints for _, fingerprints in parts)])
        owners = np.repeat(np.arange(len(parts), dtype=np.int32), [len(fingerprints) for _, fingerprints in parts])
        self._sorted, first = np.unique(joined, return_index=True)
        self._owners = owners[first]

    def __len__(self) -> int:
        return len(self._sorted)

    def owners(self, fingerprints: bytes) -> list[str | None]:
        """For each of several fingerprints the name of a data set that has it, or None."""
        wanted = np.frombuffer(fingerprints, FINGERPRINTS)
        if not len(self._sorted):
            return [None] * len(wanted)
        places = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        is_known = (self._sorted[places] == wanted).tolist()
        return [self.names[self._owners[at]] if known else None for at, known in zip(places, is_known, strict=True)]

    def digest(self) -> str:
        """Changes when one of the fingerprints does."""
        return blake2b(self._sorted.tobytes(), digest_size=16).hexdigest()


def _texts(values: Any, is_listed: bool = False) -> Iterator[tuple[str, bool]]:
    """(text, whether it stands in a list) of all texts below some values."""
    for value in values:
        if isinstance(value, str):
            yield value, is_listed
        elif isinstance(value, Mapping):
            yield from _texts(value.values(), is_listed)
        elif isinstance(value, list | tuple):
            yield from _texts(value, True)


def _digest(kind: bytes, text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=FINGERPRINT_BYTES, person=kind).digest()
