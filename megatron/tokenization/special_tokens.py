"""Names of the tokens that are no text, and how to find them in a vocabulary."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from megatron.records.special_tokens import NUM_SENTINELS

PAD = "<pad>"
END = "</s>"
UNKNOWN = "<unk>"
MASK = "<mask>"
CLASSIFICATION = "<cls>"
SEPARATOR = "<sep>"

MASK_NAMES = (MASK, "[MASK]")
CLASSIFICATION_NAMES = (CLASSIFICATION, "[CLS]")
SEPARATOR_NAMES = (SEPARATOR, "[SEP]")
MODE_NAMES = ("[R]", "[S]", "[X]")  # Tay et al. 2022, section 3.1.3
MODE_SPELLINGS = (MODE_NAMES, ("[NLU]", "[S2S]", "[NLG]"))  # the second as Hugging Face's google/ul2 has them
FIM_NAMES = ("<fim_prefix>", "<fim_middle>", "<fim_suffix>")  # as in StarCoder
FIM_SPELLINGS = (
    FIM_NAMES,
    ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),  # Qwen2.5-Coder, CodeGemma
    ("<fim-prefix>", "<fim-middle>", "<fim-suffix>"),  # SantaCoder
)


def sentinel_name(number: int) -> str:
    """Name of the sentinel that marks the gap `number`, counted from 0, as in T5's vocabulary."""
    return f"<extra_id_{number}>"


# Special tokens that a vocabulary may be given: by their field of SpecialTokens, names in the order of that field.
NAMES_TO_ADD: dict[str, tuple[str, ...]] = {
    "sentinels": tuple(sentinel_name(number) for number in range(NUM_SENTINELS)),
    "mode_tokens": MODE_NAMES,
    "fim_tokens": FIM_NAMES,
}


def in_order_of_ids(kind: str, names: Sequence[str]) -> list[str]:
    """Names of one kind as they follow one another in a vocabulary: sentinels descend as in T5's, others ascend."""
    return list(reversed(names)) if kind == "sentinels" else list(names)


def find_sentinels(id_of: Callable[[str], int | None]) -> tuple[int, ...]:
    """Ids of <extra_id_0>, <extra_id_1>, ... up to the first that is missing."""
    ids = (id_of(sentinel_name(number)) for number in itertools.count())
    return tuple(token for token in itertools.takewhile(lambda token: token is not None, ids) if token is not None)


def find_first(id_of: Callable[[str], int | None], names: tuple[str, ...]) -> int | None:
    """Id of the first name that the vocabulary has."""
    return next((token for name in names if (token := id_of(name)) is not None), None)


def find_all(id_of: Callable[[str], int | None], *spellings: tuple[str, ...]) -> tuple[int, ...]:
    """Ids of the names in the first spelling that the vocabulary has whole; empty where it has none."""
    for names in spellings:
        ids = [token for name in names if (token := id_of(name)) is not None]
        if len(ids) == len(names):
            return tuple(ids)
    return ()
