"""Whether AutoTokenizer gives a text the ids that the tokenizer of a run gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer

from megatron.conversion.described_model import DescribedModel
from megatron.conversion.loaded_folder import ids_around_texts, tokenizer_ids
from megatron.conversion.tokenizer_files import WHOLE, holds_tokenizer, ids_around
from megatron.conversion.tokenizer_proof import SHOWN_CHARACTERS, is_tie, unigram_pieces
from megatron.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenizerParity:
    """is_same: None where there was nothing to compare. remark: for reports."""

    is_same: bool | None
    remark: str


def compare_tokenizers(tokenizer: Tokenizer, folder: Path, text: str, *, with_code: bool) -> TokenizerParity:
    """Line by line, without what stands around texts. with_code: see LoadedFolder.open.

    Two cuts into pieces of equal score are the same: rounding decides between them. Raises RunFault for a tokenizer
    that does not load.
    """
    if not holds_tokenizer(folder):
        return TokenizerParity(None, "the folder has none")
    lines = text.splitlines(keepends=True)
    ours = [[int(token) for token in ids] for ids in tokenizer.encode_batch(lines)]
    theirs = tokenizer_ids(folder, lines, with_code=with_code)
    pieces = unigram_pieces(FastTokenizer.from_file(str(folder / WHOLE))) if (folder / WHOLE).is_file() else []
    unequal = [number for number, ids in enumerate(ours) if ids != theirs[number]]
    other = [number for number in unequal if not is_tie(ours[number], theirs[number], pieces)]
    count = f"{sum(map(len, ours)):,} ids"
    if other:
        shown = lines[other[0]].strip()[:SHOWN_CHARACTERS]
        return TokenizerParity(False, f"other ids in {len(other):,} of {len(lines):,} lines, first in {shown!r}")
    if unequal:
        return TokenizerParity(
            True, f"the same {count}, but for {len(unequal):,} lines with two cuts into pieces of equal score"
        )
    return TokenizerParity(True, f"the same {count}")


def compare_what_is_around(
    parity: TokenizerParity,
    tokenizer: Tokenizer,
    folder: Path,
    described: DescribedModel,
    *,
    with_code: bool,
    is_export: bool,
) -> TokenizerParity:
    """The same parity, failed where the folder's tokenizer puts other tokens in front of a text than rows have.

    is_export: behind it, too. What a stranger's puts behind texts is told, but says nothing of the rows that a run was
    asked to have. Raises RunFault for a tokenizer that does not load.
    """
    places = ("in front of texts", "behind texts")
    wanted, found = ids_around(tokenizer, described), ids_around_texts(folder, with_code=with_code)
    different = [
        f"the folder's puts {_named(theirs, tokenizer)} {place}, and rows have {_named(ours, tokenizer)} there"
        for place, ours, theirs in zip(places, wanted, found, strict=True)
        if ours != theirs
    ]
    if not different:
        said = [f"{_named(ids, tokenizer)} {place}" for place, ids in zip(places, found, strict=True) if ids]
        return replace(parity, remark=", ".join([parity.remark, *said]))
    return TokenizerParity(wanted[0] == found[0] and not is_export, "; ".join([parity.remark, *different]))


def _named(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    names = [tokenizer.piece(token) if token < tokenizer.vocabulary_size else str(token) for token in ids]
    return " ".join(names) or "nothing"
