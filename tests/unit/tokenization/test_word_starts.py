from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.tokenization.tokenizer import Tokenizer, load_tokenizer
from megatron.tokenization.word_starts import WordStarts


@pytest.fixture(scope="module")
def tokenizer(sentencepiece_model: Path) -> Tokenizer:
    return load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))


WORDS = st.lists(st.text("abcdefghijé.-你", min_size=1, max_size=12), min_size=1, max_size=8)
GAPS = st.sampled_from([" ", "\n", "\t", "\n\n", "\r\n"])


@settings(max_examples=200, deadline=None)
@given(words=WORDS, gap=GAPS)
def test_words_are_what_white_space_parts(tokenizer: Tokenizer, words: list[str], gap: str) -> None:
    ids = np.array(tokenizer.encode(gap.join(words)), dtype=np.int32)
    starts = WordStarts.of(tokenizer)(ids)
    groups = np.split(ids, np.flatnonzero(starts)[1:])
    texts = [tokenizer.decode(group).strip() for group in groups]
    assert [text for text in texts if text] == words


def test_special_tokens_stand_alone(tokenizer: Tokenizer) -> None:
    word = tokenizer.encode("xqzj")
    ids = np.array([*word, 1, *word[1:], tokenizer.sentinel_ids[0], word[-1]], dtype=np.int32)
    starts = WordStarts.of(tokenizer)(ids)
    end, sentinel = len(word), 2 * len(word)
    assert list(np.flatnonzero(starts)) == [0, end, end + 1, sentinel, sentinel + 1]


def test_no_tokens() -> None:
    tables = WordStarts(opens=np.ones(3, dtype=np.bool_), ends_word=np.ones(3, dtype=np.bool_))
    assert tables(np.empty(0, dtype=np.int32)).shape == (0,)
