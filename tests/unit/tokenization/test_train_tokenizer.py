from __future__ import annotations

import itertools
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.basics.errors import UserError
from megatron.tokenization.options import TrainTokenizerOptions
from megatron.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer
from megatron.tokenization.train import train_to_files, train_tokenizer, with_control_pieces

TEXTS = list(topics.values())[:40]


def options(prefix: Path, **settings: object) -> TrainTokenizerOptions:
    return TrainTokenizerOptions(output_prefix=str(prefix), **{"vocab_size": 800, **settings})


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_vocabulary_is_laid_out_as_documented(tmp_path: Path, model_type: str) -> None:
    train_to_files(TEXTS, options(tmp_path / "v", model_type=model_type))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "v.model"))
    pieces = [processor.id_to_piece(token) for token in range(processor.get_piece_size())]
    assert len(pieces) == 800
    assert pieces[:6] == ["<pad>", "</s>", "<unk>", "<mask>", "<cls>", "<sep>"]
    assert pieces[6:262] == [f"<0x{byte:02X}>" for byte in range(256)]
    assert pieces[-100:] == [f"<extra_id_{number}>" for number in range(99, -1, -1)]
    assert len(set(pieces)) == 800
    specials = [0, 1, 3, 4, 5, *range(700, 800)]
    assert all(processor.is_control(token) for token in specials)
    assert not any(processor.is_control(token) for token in range(6, 700))


def test_appended_sentinels_leave_encoding_as_the_library_trained_it(tmp_path: Path) -> None:
    """The library's own encoding with and without the hundred control symbols behind its pieces."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(TEXTS).split("\n")),
        model_prefix=str(tmp_path / "plain"),
        vocab_size=700,
        byte_fallback=True,
        minloglevel=2,
    )
    plain = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "plain.model"))
    extended = sentencepiece.SentencePieceProcessor(
        model_proto=with_control_pieces(
            (tmp_path / "plain.model").read_bytes(), [f"<extra_id_{number}>" for number in range(99, -1, -1)], 800
        )
    )
    assert extended.get_piece_size() == 800
    assert [extended.encode(text) for text in TEXTS] == [plain.encode(text) for text in TEXTS]
    assert plain.encode("x <extra_id_0> </s> <mask>") == extended.encode("x <extra_id_0> </s> <mask>")


def test_vocabulary_file_is_the_librarys_format(tmp_path: Path) -> None:
    train_to_files(TEXTS, options(tmp_path / "v"))
    lines = (tmp_path / "v.vocab").read_text("utf-8").split("\n")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "v.model"))
    assert lines.pop() == ""
    assert [line.split("\t")[0] for line in lines] == [processor.id_to_piece(token) for token in range(800)]
    assert all(abs(float(line.split("\t")[1]) - processor.get_score(i)) < 1e-3 for i, line in enumerate(lines))


def test_same_text_gives_the_same_model(tmp_path: Path) -> None:
    chosen = options(tmp_path / "v", max_lines=500)
    assert train_tokenizer(TEXTS, chosen) == train_tokenizer(TEXTS, chosen)


def test_too_large_vocabulary_names_the_largest_that_works(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--vocab-size 900000 is too large .* use (\d+) or less") as caught:
        train_to_files(TEXTS, options(tmp_path / "v", vocab_size=900000, model_type="bpe"))
    assert list(tmp_path.iterdir()) == []
    largest = int(str(caught.value).split(" use ")[1].split()[0])
    train_to_files(TEXTS, options(tmp_path / "v", vocab_size=largest, model_type="bpe"))
    assert SentencePieceTokenizer(str(tmp_path / "v.model")).vocabulary_size == largest


def test_special_tokens_count_towards_the_size(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"--vocab-size 363 is too small with --special-tokens fim_tokens; use 366 or m"
    ):
        options(tmp_path / "v", vocab_size=363, special_tokens=["fim_tokens"])
    with pytest.raises(UserError, match=r"--special-tokens mode_token is not known; did you mean mode_tokens\?"):
        options(tmp_path / "v", special_tokens=["mode_token"])


def test_too_small_vocabulary_names_the_smallest_that_works(tmp_path: Path) -> None:
    many_letters = ["".join(chr(0x4E00 + i) for i in range(start, start + 50)) for start in range(0, 500, 50)]
    with pytest.raises(UserError, match=r"--vocab-size 400 is too small .* use (\d+) or more"):
        train_to_files(many_letters, options(tmp_path / "v", vocab_size=400, character_coverage=1.0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("texts", [[], [""], [" \n\t\n"]])
def test_text_without_text_is_refused(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(UserError, match="--input holds no text"):
        train_to_files(texts, options(tmp_path / "v"))
    assert list(tmp_path.iterdir()) == []


def test_error_of_the_reader_comes_through(tmp_path: Path) -> None:
    def broken() -> object:
        yield from TEXTS
        raise UserError("the disk fell out")

    with pytest.raises(UserError, match=r"^the disk fell out$"):
        train_to_files(broken(), options(tmp_path / "v"))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    prefix = tmp_path_factory.mktemp("trained") / "v"
    train_to_files(TEXTS, options(prefix, model_type=request.param))
    return SentencePieceTokenizer(f"{prefix}.model")


WILD_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=200)
TAME_TEXT = st.lists(st.sampled_from([*"ab \n\t", "  ", "the ", "é", "你", "</s>", "<extra_id_0>", "\r\n"])).map(
    "".join
)


@settings(max_examples=300, deadline=None)
@given(text=WILD_TEXT | TAME_TEXT)
def test_any_text_comes_back(trained: SentencePieceTokenizer, text: str) -> None:
    """Lossless but for U+2581, which the library reads as a space."""
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    assert all(6 <= token < 700 for token in ids), "text made a special token"


def test_character_of_the_space_mark_becomes_a_space(trained: SentencePieceTokenizer) -> None:
    assert trained.decode(trained.encode("a▁b")) == "a b"


def test_normalisation_and_digits(tmp_path: Path) -> None:
    texts = [f"{text} 1234567890 2026" for text in TEXTS]
    train_to_files(texts, options(tmp_path / "v", normalization="nmt_nfkc_cf", split_digits=True))
    tokenizer = SentencePieceTokenizer(str(tmp_path / "v.model"))
    assert tokenizer.decode(tokenizer.encode("The  ﬁrst\nLINE")) == "the first line"
    pieces = [tokenizer.piece(token) for token in tokenizer.encode("2026 1234")]
    assert [digit for piece in pieces for digit in piece if digit.isdigit()] == list("20261234")
    assert all(sum(map(str.isdigit, piece)) <= 1 for piece in pieces)


def test_long_lines_are_learnt_from(tmp_path: Path) -> None:
    """The library drops long lines without a word; ours are cut."""
    words = [f"{a}{b}zqx" for a, b in itertools.product("bcdfg", "aeiou")]
    train_to_files([" ".join(words * 400)], options(tmp_path / "v", vocab_size=400))
    tokenizer = SentencePieceTokenizer(str(tmp_path / "v.model"))
    assert len(tokenizer.encode("bazqx")) < len("bazqx")
