"""From --data-path and its relatives to one source of windows for each split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megatron.basics.errors import UserError
from megatron.basics.seeds import seed_for
from megatron.data.blend import Blend
from megatron.data.options import DataOptions, blend_of
from megatron.data.packing import PackedDocuments, PieceSizes
from megatron.data.splits import SPLIT_NAMES, split_ranges, whole_file
from megatron.data.token_file import TokenFile, open_token_file
from megatron.data.windows import SplitWindows, WindowSource


@dataclass(frozen=True, kw_only=True)
class WindowRules:
    """How splits are cut into windows (both lengths in tokens, from the objective) and the seed of their order.

    parts_documents: the documents of a window are windows of their own. sizes: what pieces take of a row, where whole
    documents are packed into rows; the other rules but for the seed then say nothing.
    """

    window_length: int
    stride: int
    seed: int
    parts_documents: bool = False
    sizes: PieceSizes | None = None


def build_sources(
    options: DataOptions,
    rules: WindowRules,
    *,
    vocabulary_size: int | None = None,
    tokenizer_fingerprint: str | None = None,
    splits: Sequence[str] = ("train", "valid"),
) -> dict[str, WindowSource | None]:
    """A source for each of `splits`; None where the options give that split no text.

    Training is shuffled, validation and test are cut at fixed places and read in order. Raises UserError with every
    fault of every file: no --data-path, files that do not open (see `open_token_file`), splits shorter than a window.
    """
    opened: dict[str, TokenFile] = {}
    sources: dict[str, WindowSource | None] = {}
    faults: list[str] = []
    for split in splits:
        sources[split] = None
        parts = []
        for number, (weight, prefix) in enumerate(blend_of_split(options, split)):
            try:
                if prefix not in opened:
                    opened[prefix] = open_token_file(
                        prefix, vocabulary_size=vocabulary_size, tokenizer_fingerprint=tokenizer_fingerprint
                    )
                parts.append((weight, _windows(opened[prefix], options, rules, split, number)))
            except UserError as error:
                faults += [fault for fault in error.faults if fault not in faults]
        if len(parts) == 1:
            sources[split] = parts[0][1]
        elif parts:
            sources[split] = Blend([windows for _, windows in parts], [weight for weight, _ in parts])
        elif split == "train" and not faults:
            faults.append(f"--data-path names no text to train on with --split {options.split}; give a token file.")
    if faults:
        raise UserError(*faults)
    return sources


def blend_of_split(options: DataOptions, split: str) -> list[tuple[float, str]]:
    """[(weight, prefix)] of the text that a split is given; nothing where it is given none."""
    if options.train_data_path:
        own = {"train": options.train_data_path, "valid": options.valid_data_path}
        return blend_of(own.get(split, []))
    share = options.split_weights[SPLIT_NAMES.index(split)]
    return blend_of(options.data_path) if share else []


def _windows(file: TokenFile, options: DataOptions, rules: WindowRules, split: str, number: int) -> WindowSource:
    if options.train_data_path:
        tokens = whole_file(file.index)
    else:
        tokens = split_ranges(file.index, options.split_weights)[split]
    # The place in the blend, not the path, tells files apart: a moved corpus keeps its order.
    seed = seed_for(rules.seed, "windows", split, number)
    shuffled = split == "train"
    if rules.sizes is not None:
        return PackedDocuments(file, tokens, rules.sizes, seed=seed, shuffled=shuffled, name=split)
    return SplitWindows(
        file,
        tokens,
        window_length=rules.window_length,
        stride=rules.stride,
        seed=seed,
        shuffled=shuffled,
        parts_documents=rules.parts_documents,
        name=split,
    )
