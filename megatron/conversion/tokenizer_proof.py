"""Whether an exported tokenizer gives the ids and the text that ours gives, on a sample of text."""

from __future__ import annotations

import builtins
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pydoc_data.topics import topics

from tokenizers import Tokenizer as FastTokenizer

from megatron.basics.errors import UserError
from megatron.tokenization.tokenizer import Tokenizer

TOPIC_CHARACTERS = 2000
SHOWN_CHARACTERS = 60
# Scores are summed in single precision on one side.
TIE_TOLERANCE = 1e-5
ODD_TEXTS = (
    "",
    " ",
    "  two  spaces  ",
    " one in front",
    "\ttab\n  indented\n\n",
    "line\r\nline",
    "no\u00a0break \u200b zero",
    "\u2581 a \u2581word",
    "na\u00efve nai\u0308ve \ufb01ne \u00bd \u212b \u2026",
    "\u4f60\u597d \u65e5\u672c\u8a9e \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0639\u0631\u0628\u064a",
    "\U0001f642\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001d11e",
    "0123456789 3.14e-10 x_1 = {'a': [1, 2]}",
)


@dataclass(frozen=True)
class TokenizerProof:
    """texts: in the sample. ties: of these, texts that both cut differently into pieces of equal score."""

    texts: int
    ties: int

    def sentence(self) -> str:
        """For a report."""
        if not self.ties:
            return f"tokenizer: {self.texts} texts get the same ids and the same text back"
        return (
            f"tokenizer: {self.texts - self.ties} of {self.texts} texts get the same ids; the others are cut "
            "differently into pieces of equal score, between which rounding decides"
        )


def prove(tokenizer: Tokenizer, fast: FastTokenizer, names: Sequence[str] = ()) -> TokenizerProof:
    """Compare ids and decoded text on documentation of Python, odd strings, and `names` as characters of a text.

    Raises UserError for the first text whose ids differ, unless a unigram model gives both segmentations the same
    score, or that is decoded differently.
    """
    texts = _sample(names)
    pieces = unigram_pieces(fast)
    expected = [[int(token) for token in ids] for ids in tokenizer.encode_batch(texts)]
    fast.encode_special_tokens = True  # means: no search for the names of special tokens in text
    got = [encoding.ids for encoding in fast.encode_batch(texts, add_special_tokens=False)]
    fast.encode_special_tokens = False
    decoded = fast.decode_batch(expected, skip_special_tokens=True)
    ties = 0
    for text, ours, theirs, again in zip(texts, expected, got, decoded, strict=True):
        if ours != theirs:
            if not is_tie(ours, theirs, pieces):
                raise UserError(_difference(tokenizer, text, "its ids are others"))
            ties += 1
        # SentencePiece shows unknown characters, others leave them out with the special tokens.
        if tokenizer.special.unknown not in ours and tokenizer.decode(ours) != again:
            raise UserError(_difference(tokenizer, text, "its ids become another text"))
    return TokenizerProof(len(texts), ties)


def _sample(names: Sequence[str]) -> list[str]:
    documented = [entry for entry in vars(builtins).values() if isinstance(entry, type) or callable(entry)]
    members = [member for entry in documented if isinstance(entry, type) for member in vars(entry).values()]
    docstrings = [getattr(entry, "__doc__", None) for entry in (*documented, *members)]
    distinct = dict.fromkeys(text for text in docstrings if isinstance(text, str))
    named = [part for name in names for part in (name, f"a{name}b", f"one {name} {name} two")]
    return [*(text[:TOPIC_CHARACTERS] for text in topics.values()), *distinct, *ODD_TEXTS, *named]


def unigram_pieces(fast: FastTokenizer) -> list[tuple[str, float]]:
    """Name and score of each id of a unigram model; empty for other kinds, which have no ties."""
    model = json.loads(fast.to_str())["model"]
    return [(name, score) for name, score in model["vocab"]] if model["type"] == "Unigram" else []


def is_tie(ours: Sequence[int], theirs: Sequence[int], pieces: Sequence[tuple[str, float]]) -> bool:
    """Whether two segmentations spell one text and have the same score; pieces: name and score of each id.

    The score alone would also take two pieces of equal score for one another, whatever they say.
    """
    if not pieces:
        return False
    # Tokens behind the model's own were added to it: they have no score, and are spelled by their number.
    spelled = [
        "".join(pieces[token][0] if token < len(pieces) else f"<{token}>" for token in ids) for ids in (ours, theirs)
    ]
    total = [math.fsum(pieces[token][1] for token in ids if token < len(pieces)) for ids in (ours, theirs)]
    return spelled[0] == spelled[1] and math.isclose(*total, rel_tol=TIE_TOLERANCE)


def _difference(tokenizer: Tokenizer, text: str, what: str) -> str:
    shown = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
    return (
        f"--tokenizer-model {tokenizer.source} cannot be written as a tokenizer.json that does the same: for {shown!r} "
        f"{what}."
    )
