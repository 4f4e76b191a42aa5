"""From --data-path and its relatives to one source of examples for each split."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from megatron.basics.errors import UserError
from megatron.basics.seeds import seed_for
from megatron.data.options import DataOptions
from megatron.data.packed_pairs import ExampleRange, PackedPairs
from megatron.data.pair_file import PairFile, open_pair_file
from megatron.data.sources import blend_of_split
from megatron.data.splits import split_documents
from megatron.data.windows import WindowSource
from megatron.records.room import Room

logger = logging.getLogger(__name__)


def build_pair_sources(
    options: DataOptions,
    room: Room,
    *,
    seed: int,
    vocabulary_size: int | None = None,
    tokenizer_fingerprint: str | None = None,
    splits: Sequence[str] = ("train", "valid"),
) -> dict[str, WindowSource | None]:
    """A source for each of `splits`; None where the options give that split no examples.

    Training is shuffled, validation and test are always the same rows. A data set that is too small to have examples
    in one of them stays out of it, which is logged. Raises UserError with every fault of every file: files that do
    not open (see `open_pair_file`), targets longer than a row, nothing to train on.
    """
    opened: dict[str, PairFile] = {}
    faults: dict[str, None] = {}  # each once, in their order
    prefixes = (prefix for split in splits for _, prefix in blend_of_split(options, split))
    for prefix in dict.fromkeys(prefixes):
        try:
            opened[prefix] = open_pair_file(
                prefix, vocabulary_size=vocabulary_size, tokenizer_fingerprint=tokenizer_fingerprint
            )
        except UserError as error:
            faults |= dict.fromkeys(error.faults)
    if faults:
        raise UserError(*faults)
    sources: dict[str, WindowSource | None] = {}
    for split in splits:
        try:
            sources[split] = _source(opened, options, room, seed_for(seed, "pairs", split), split)
        except UserError as error:
            faults |= dict.fromkeys(error.faults)
    if faults:
        raise UserError(*faults)
    return sources


def _source(
    opened: Mapping[str, PairFile], options: DataOptions, room: Room, seed: int, split: str
) -> PackedPairs | None:
    blend = blend_of_split(options, split)
    parts = [ExampleRange(opened[prefix], _examples(opened[prefix], options, split), w) for w, prefix in blend]
    empty = [part.file.prefix for part in parts if not part.examples]
    if empty and (split == "train" or len(empty) == len(parts)):
        raise UserError(
            *(f"{prefix} holds 0 examples for {split}; change --split or leave it out." for prefix in empty)
        )
    if not parts and split == "train":
        raise UserError(f"--data-path names no examples to train on with --split {options.split}; give a data set.")
    if empty:
        logger.warning(
            "warning: %s: --split %s leaves no example of %s, which the figures of this split then know nothing of; "
            "data sets for it alone are given by --valid-data-path",
            split,
            options.split,
            ", ".join(empty),
        )
    filled = [part for part in parts if part.examples]
    return PackedPairs(filled, room, seed=seed, shuffled=split == "train", name=split) if filled else None


def _examples(file: PairFile, options: DataOptions, split: str) -> range:
    if options.train_data_path:
        return range(file.num_examples)
    return split_documents(file.num_examples, options.split_weights)[split]
