"""Special tokens behind a vocabulary that was made without them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, trainers

from megatron.data.token_file import open_token_file
from megatron.data.token_file_writer import token_file_writer
from megatron.tokenization.options import ADDED_TOKENS, TrainTokenizerOptions
from megatron.tokenization.special_tokens import NAMES_TO_ADD
from megatron.tokenization.tokenizer import Tokenizer, load_tokenizer
from megatron.tokenization.train import train_to_files
from megatron.tokenization.word_starts import WordStarts

TEXTS = list(topics.values())[:20]
KINDS = st.lists(st.sampled_from(ADDED_TOKENS), unique=True)


@pytest.fixture(scope="module")
def plain_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Vocabularies of both kinds of tokenizer without any of the tokens that can be added."""
    folder = tmp_path_factory.mktemp("plain")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(folder / "m"), vocab_size=400, byte_fallback=True, minloglevel=2
    )
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=500, special_tokens=["<|endoftext|>"]))
    (folder / "hf").mkdir()
    library.save(str(folder / "hf" / "tokenizer.json"))
    (folder / "hf" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return {"SentencePieceTokenizer": str(folder / "m.model"), "HuggingFaceTokenizer": str(folder / "hf")}


@pytest.fixture(params=["SentencePieceTokenizer", "HuggingFaceTokenizer"])
def pair(request: pytest.FixtureRequest, plain_models: dict[str, str]) -> tuple[Tokenizer, Tokenizer]:
    """(a tokenizer, the same one with everything added)."""
    model = plain_models[request.param]
    return load_tokenizer(request.param, model), load_tokenizer(request.param, model, ADDED_TOKENS)


def test_where_the_ids_are(pair: tuple[Tokenizer, Tokenizer]) -> None:
    plain, extended = pair
    first = plain.vocabulary_size
    assert extended.sentinel_ids == tuple(range(first + 99, first - 1, -1))
    assert extended.special.mode_tokens == (first + 100, first + 101, first + 102)
    assert extended.special.fim_tokens == (first + 103, first + 104, first + 105)
    assert extended.vocabulary_size == first + 106
    names = [extended.piece(token) for token in range(first, first + 106)]
    assert names == list(extended.added)
    assert names[0] == "<extra_id_99>" and names[99:] == [
        *("<extra_id_0>", "[R]", "[S]", "[X]"),
        *("<fim_prefix>", "<fim_middle>", "<fim_suffix>"),
    ]
    assert [extended.piece(token) for token in range(first)] == [plain.piece(token) for token in range(first)]
    assert (extended.eod_id, extended.pad_id, extended.mask_id) == (plain.eod_id, plain.pad_id, plain.mask_id)


@given(kinds=KINDS, more=KINDS)
def test_asking_for_more_moves_no_id(plain_models: dict[str, str], kinds: list[str], more: list[str]) -> None:
    """So the rows of an embedding keep their meaning when a run goes on with a larger vocabulary."""
    model = plain_models["SentencePieceTokenizer"]
    before = load_tokenizer("SentencePieceTokenizer", model, kinds)
    after = load_tokenizer("SentencePieceTokenizer", model, [*kinds, *more])
    assert after.added[: len(before.added)] == before.added
    for kind in ADDED_TOKENS:
        ids = getattr(after.special, kind)
        assert len(ids) == (len(NAMES_TO_ADD[kind]) if kind in {*kinds, *more} else 0)
        assert tuple(after.piece(token) for token in ids) == NAMES_TO_ADD[kind][: len(ids)]
        assert kind not in kinds or getattr(before.special, kind) == ids


@settings(max_examples=50, deadline=None)
@given(parts=st.lists(st.sampled_from([*"abc \n[]<>", "[R]", "<extra_id_3>", "<fim_middle>", "the "]), max_size=30))
def test_text_is_encoded_as_before(plain_models: dict[str, str], parts: list[str]) -> None:
    text = "".join(parts)
    for kind, model in plain_models.items():
        plain, extended = load_tokenizer(kind, model), load_tokenizer(kind, model, ADDED_TOKENS)
        ids = extended.encode(text)
        assert ids == plain.encode(text)
        special = [*extended.sentinel_ids[:2], *extended.special.mode_tokens]
        assert extended.decode([special[0], *ids, *special]) == plain.decode(ids)


def test_names_stand_for_tokens_where_that_is_asked_for(pair: tuple[Tokenizer, Tokenizer]) -> None:
    """The ids are those of the whole text with a span replaced, as span corruption makes them."""
    _, tokenizer = pair
    whole = tokenizer.encode("the statement is executed")
    ids = tokenizer.encode_with_special("the statement <extra_id_0> executed")
    at = ids.index(tokenizer.sentinel_ids[0])
    assert ids[:at] == whole[:at] and ids[at + 1 :] == whole[at - len(ids) + 1 :]
    assert tokenizer.decode(whole[at : at - len(ids) + 1]).strip() == "is"
    modes = tokenizer.special.mode_tokens
    assert tokenizer.encode_with_special("[S]the statement is executed [X][R]")[-2:] == [modes[2], modes[0]]
    assert tokenizer.encode_with_special("the statement is executed") == whole
    shown = tokenizer.decode_with_special([modes[1], *ids, *tokenizer.sentinel_ids[1:3], tokenizer.eod_id])
    end = tokenizer.piece(tokenizer.eod_id)
    assert shown == f"[S] the statement <extra_id_0> executed <extra_id_1> <extra_id_2> {end}"


def test_added_tokens_are_no_text(pair: tuple[Tokenizer, Tokenizer]) -> None:
    plain, extended = pair
    assert extended.surfaces() == plain.surfaces() + [None] * 106
    assert len(WordStarts.of(extended).opens) == extended.vocabulary_size


def test_token_files_of_the_plain_vocabulary_load(pair: tuple[Tokenizer, Tokenizer], tmp_path: Path) -> None:
    plain, extended = pair
    with token_file_writer(str(tmp_path / "c"), np.dtype(np.uint16)) as writer:
        tokens = np.array([*plain.encode(TEXTS[0]), plain.eod_id], np.uint16)
        writer.append(tokens, np.array([len(tokens)], np.int32))
        writer.seal(plain, plain.eod_id)
    opened = open_token_file(
        str(tmp_path / "c"),
        vocabulary_size=extended.vocabulary_size,
        tokenizer_fingerprint=extended.fingerprint,
    )
    assert list(opened.read(0, len(tokens))) == list(tokens)


def test_what_is_there_is_not_added_again(sentencepiece_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    with caplog.at_level(logging.INFO):
        same = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model), ["sentinels"])
    assert (same.special, same.vocabulary_size, same.added) == (plain.special, plain.vocabulary_size, ())
    (record,) = caplog.records
    assert record.getMessage().endswith("topics.model has them, nothing is added")


def test_sentinels_are_filled_up_to_a_hundred(tmp_path: Path) -> None:
    names = [f"<extra_id_{number}>" for number in range(7, -1, -1)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(tmp_path / "m"),
        vocab_size=300,
        control_symbols=names,
        minloglevel=2,
    )
    plain = load_tokenizer("SentencePieceTokenizer", str(tmp_path / "m.model"))
    filled = load_tokenizer("SentencePieceTokenizer", str(tmp_path / "m.model"), ["sentinels"])
    assert len(plain.sentinel_ids) == 8 and filled.sentinel_ids[:8] == plain.sentinel_ids
    assert filled.sentinel_ids[8:] == tuple(range(391, 299, -1))
    assert [filled.piece(token) for token in filled.sentinel_ids] == list(NAMES_TO_ADD["sentinels"])


def test_trained_vocabularies_have_what_they_are_asked_for(tmp_path: Path) -> None:
    options = TrainTokenizerOptions(
        output_prefix=str(tmp_path / "v"), vocab_size=800, special_tokens=["mode_tokens", "fim_tokens"]
    )
    train_to_files(TEXTS, options)
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(tmp_path / "v.model"))
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "v.model"))
    assert tokenizer.vocabulary_size == 800
    assert tokenizer.sentinel_ids == tuple(range(799, 699, -1))
    assert [library.id_to_piece(token) for token in tokenizer.special.mode_tokens] == ["[R]", "[S]", "[X]"]
    assert [library.id_to_piece(token) for token in tokenizer.special.fim_tokens] == list(NAMES_TO_ADD["fim_tokens"])
    special = [*tokenizer.special.mode_tokens, *tokenizer.special.fim_tokens]
    assert sorted(special) == list(range(694, 700)) and all(library.is_control(token) for token in special)
    text = "[R] is <fim_prefix>"
    assert tokenizer.decode(tokenizer.encode(text)) == text and not set(special) & set(tokenizer.encode(text))
