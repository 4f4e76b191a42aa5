from __future__ import annotations

import hashlib
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import sentencepiece

from megatron.basics.errors import UserError
from megatron.tokenization.tokenizer import load_tokenizer

TEXTS = [*list(topics.values())[:20], "", " ", "é你 𝄞"]


def test_ids_are_the_librarys_own(sentencepiece_model: Path) -> None:
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    library = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    batch = tokenizer.encode_batch(TEXTS)
    assert [list(ids) for ids in batch] == [library.encode(text) for text in TEXTS]
    assert all(ids.dtype == np.int32 for ids in batch)
    assert [tokenizer.encode(text) for text in TEXTS] == [list(ids) for ids in batch]
    assert [tokenizer.decode(ids) for ids in batch] == TEXTS
    assert tokenizer.decode([1, 999, *batch[0], 1]) == TEXTS[0]


@pytest.mark.parametrize("added", [(), ("mode_tokens",)])
def test_half_a_character_is_no_text(sentencepiece_model: Path, added: tuple[str, ...]) -> None:
    """JSON can say it: "\\ud800"."""
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model), added)
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode_batch(["a word", "half \ud800"])
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode_with_special("half \ud800")


def test_what_is_known_of_the_model(sentencepiece_model: Path) -> None:
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    assert tokenizer.vocabulary_size == 1000
    assert tokenizer.fingerprint == hashlib.sha256(sentencepiece_model.read_bytes()).hexdigest()
    assert (tokenizer.pad_id, tokenizer.eod_id, tokenizer.mask_id) == (0, 1, 3)
    assert (tokenizer.special.unknown, tokenizer.special.classification, tokenizer.special.separator) == (2, 4, 5)
    assert tokenizer.special.begin is None
    assert tokenizer.sentinel_ids == tuple(range(999, 899, -1))


def test_plain_model_of_the_library(tmp_path: Path) -> None:
    """A model as the library makes it by default: unk 0, bos 1, eos 2, no padding, mask or sentinels."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(tmp_path / "m"), vocab_size=300, minloglevel=2
    )
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(tmp_path / "m.model"))
    assert (tokenizer.eod_id, tokenizer.pad_id, tokenizer.mask_id, tokenizer.sentinel_ids) == (2, 2, None, ())
    assert tokenizer.special.begin == 1 and 1 in tokenizer.special.ids()


def test_user_defined_special_tokens_are_not_found_in_text(tmp_path: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(tmp_path / "m"),
        vocab_size=600,
        byte_fallback=True,
        user_defined_symbols=["<mask>", "<extra_id_0>", "[NLG]", "[NLU]", "[S2S]"],
        minloglevel=2,
    )
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "m.model"))
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(tmp_path / "m.model"))
    assert tokenizer.special.mode_tokens == tuple(map(library.piece_to_id, ("[NLU]", "[S2S]", "[NLG]")))
    for text in ["<mask>", "a <mask><mask> b<extra_id_0>", "<extra_id_0"]:
        assert {tokenizer.mask_id, *tokenizer.sentinel_ids} & set(library.encode(text)) or not text.endswith(">")
        ids = tokenizer.encode(text)
        assert not {tokenizer.mask_id, *tokenizer.sentinel_ids} & set(ids)
        assert tokenizer.decode(ids) == text


def test_surfaces_join_to_the_text(sentencepiece_model: Path) -> None:
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    surfaces = tokenizer.surfaces()
    text = "if x:\n    return\ty"
    assert "".join(surfaces[token] or "?" for token in tokenizer.encode(text)) == f" {text}"
    assert [token for token, surface in enumerate(surfaces) if surface is None] == [*range(6), *range(900, 1000)]


def test_bad_models_are_answered_by_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.model").write_text("no model at all")
    (tmp_path / "empty.model").write_text("")
    for kind, model, message in [
        ("SentencePieceTokenizer", None, "--tokenizer-model is missing"),
        ("SentencePieceTokenizer", "nowhere.model", "nowhere.model cannot be read: No such file"),
        ("SentencePieceTokenizer", str(tmp_path), "is a folder"),
        ("SentencePieceTokenizer", str(tmp_path / "text.model"), "is not a SentencePiece model"),
        ("SentencePieceTokenizer", str(tmp_path / "empty.model"), "is not a SentencePiece model"),
        ("SentencePeaceTokenizer", "x", "--tokenizer-type SentencePeaceTokenizer is not known; did you mean Sentence"),
    ]:
        with pytest.raises(UserError, match=message):
            load_tokenizer(kind, model)


def test_model_without_end_is_refused(tmp_path: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(tmp_path / "m"), vocab_size=300, eos_id=-1, minloglevel=2
    )
    with pytest.raises(UserError, match="no end token"):
        load_tokenizer("SentencePieceTokenizer", str(tmp_path / "m.model"))
