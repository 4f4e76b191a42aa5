"""Documents that are encoded in parts have the ids of the whole."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from megatron.tokenization import tokenizer as tokenizer_module
from megatron.tokenization.options import TrainTokenizerOptions
from megatron.tokenization.tokenizer import cut_before_spaces, load_tokenizer
from megatron.tokenization.train import train_to_files


@given(text=st.text(st.sampled_from("ab \n"), max_size=60), length=st.integers(1, 12))
def test_parts_join_to_the_text(text: str, length: int) -> None:
    parts = list(cut_before_spaces(text, length))
    assert "".join(parts) == text
    assert all(len(part) <= length for part in parts)


@given(words=st.lists(st.text("abc", min_size=1, max_size=5)), length=st.integers(6, 30))
def test_words_stay_whole(words: list[str], length: int) -> None:
    """One space between words of at most 5 letters: no part of 6 or more needs to cut a word."""
    parts = list(cut_before_spaces(" ".join(words), length))
    assert [word for part in parts for word in part.split()] == words


def test_no_cut_inside_a_run_of_spaces() -> None:
    assert list(cut_before_spaces("aa bb    cc", 8)) == ["aa", " bb    c", "c"]


PROSE = [" ".join(word for word in text.split() if len(word) < 40) for text in list(topics.values())[:10]]


@pytest.mark.parametrize("length", [40, 100, 1001])
def test_parts_have_the_ids_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    options = TrainTokenizerOptions(output_prefix=str(tmp_path / "v"), vocab_size=800, model_type="bpe")
    train_to_files(PROSE, options)
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(tmp_path / "v.model"))
    whole = [tokenizer.encode(text) for text in PROSE]
    monkeypatch.setattr(tokenizer_module, "PART_CHARACTERS", length)
    assert [tokenizer.encode(text) for text in PROSE] == whole


@pytest.mark.parametrize("length", [40, 100, 1001])
def test_parts_of_a_unigram_model_score_as_the_whole(
    sentencepiece_model: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    library = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))

    def scores() -> list[float]:
        return [sum(map(library.get_score, tokenizer.encode(text))) for text in PROSE]

    whole = scores()
    monkeypatch.setattr(tokenizer_module, "PART_CHARACTERS", length)
    assert scores() == pytest.approx(whole, rel=1e-6)  # the library adds up to 1e4 scores in float32


@pytest.mark.parametrize("text", ["你好" * 500, "ab\n\n" * 300, "  x" * 400, "a" * 1000 + " " * 1000 + "\n" * 1000])
def test_text_without_a_place_to_cut_comes_back(
    sentencepiece_model: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    monkeypatch.setattr(tokenizer_module, "PART_CHARACTERS", 64)
    assert tokenizer.decode(tokenizer.encode(text)) == text
