"""What objectives cannot work with is answered by one sentence that names the flag, and nothing is left behind."""

import shutil
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import sentencepiece
from run_folder import listing, losses_of
from test_bad_input import assert_refused

from megatron.basics.errors import UserError
from megatron.cli.generate import main as generate_main


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory):
    """A vocabulary of 300 as the library makes it by default: without sentinels, mode tokens or fill-in tokens."""
    prefix = tmp_path_factory.mktemp("plain") / "m"
    texts = list(topics.values())[:20]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(prefix), vocab_size=300, minloglevel=2
    )
    return Path(f"{prefix}.model")


@pytest.fixture(scope="module")
def plain_corpus(plain_model, tmp_path_factory):
    """Token files of that vocabulary, with the facts that preprocess_data writes beside them."""
    from megatron.data.token_file_writer import token_file_writer
    from megatron.tokenization.tokenizer import load_tokenizer

    tokenizer = load_tokenizer("SentencePieceTokenizer", str(plain_model))
    prefix = tmp_path_factory.mktemp("plain_corpus") / "text_document"
    with token_file_writer(str(prefix), np.dtype(np.uint16)) as writer:
        for tokens in tokenizer.encode_batch(list(topics.values())[:20]):
            document = np.append(tokens, tokenizer.eod_id).astype(np.uint16)
            writer.append(document, np.array([len(document)], np.int32))
        writer.seal(tokenizer, tokenizer.eod_id)
    return {"data_path": prefix, "tokenizer_model": plain_model}


NO_SENTINELS = "the vocabulary of --tokenizer-model has 0 sentinels", "--add-special-tokens sentinels"
TOO_SHORT_FOR_A_SPAN = ("raise --seq-length or --decoder-seq-length.",)
# name: (architecture, flags, parts of the one sentence)
REFUSED = {
    "pair": (
        "encoder_decoder",
        {"objective": "full_lm"},
        ("--objective full_lm is not one of encoder_decoder; it takes: prefix_lm, span_corruption",),
    ),
    "no sentinels": ("encoder_decoder", {"plain": True}, NO_SENTINELS),
    "no sentinels in one stream": ("causal_decoder", {"objective": "span_corruption", "plain": True}, NO_SENTINELS),
    "no mode tokens": (
        "prefix_decoder",
        {"objective": "ul2"},
        ("--objective ul2 needs the mode tokens [R], [S] and [X]", "--add-special-tokens mode_tokens"),
    ),
    "no fill-in tokens": (
        "causal_decoder",
        {"objective": "fill_in_the_middle"},
        ("--objective fill_in_the_middle needs marks of prefix", "--add-special-tokens fim_tokens"),
    ),
    "too few sentinels": (
        "prefix_decoder",
        {"objective": "span_corruption", "seq_length": 2048, "mean_noise_span_length": 1},
        ("has 100 sentinels; use --seq-length 873 or less, or a larger --mean-noise-span-length",),
    ),
    "row too short for a span": (
        "prefix_decoder",
        {"objective": "span_corruption", "seq_length": 4},
        TOO_SHORT_FOR_A_SPAN,
    ),
    "decoder's row too short for a span": ("encoder_decoder", {"decoder_seq_length": 2}, TOO_SHORT_FOR_A_SPAN),
    "window of one token": (
        "prefix_decoder",
        {"seq_length": 1, "begin_with_start_token": True},
        ("--objective prefix_lm needs a window of two tokens or more, to cut it in two; raise --seq-length.",),
    ),
    "no such token to add": (
        "prefix_decoder",
        {"add_special_tokens": "sentinel"},
        ("--add-special-tokens sentinel is not known; did you mean sentinels?",),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_sentence(name, trainer, tiny_corpus, plain_corpus, tmp_path):
    architecture, flags, parts = REFUSED[name]
    flags = dict(flags)
    flags |= plain_corpus if flags.pop("plain", False) else {}
    ended = trainer.run(tiny_corpus.flags(save=tmp_path / "run", **flags), architecture=architecture)
    assert_refused(ended, *parts)
    assert len(ended.errors) == 1
    assert list(tmp_path.iterdir()) == []


def test_no_text_has_an_added_id(trainer, tiny_corpus, plain_corpus, tmp_path):
    """Token files made elsewhere have no facts beside them; an id behind the model's own is another tokenizer's."""
    prefix = tmp_path / "text_document"
    tokens = np.fromfile(f"{plain_corpus['data_path']}.bin", np.uint16)
    tokens[: len(tokens) // 2] = 350
    tokens.tofile(f"{prefix}.bin")
    shutil.copy(f"{plain_corpus['data_path']}.idx", f"{prefix}.idx")
    words = tiny_corpus.flags(**{**plain_corpus, "data_path": prefix, "add_special_tokens": "sentinels"})
    assert_refused(trainer.run(words, architecture="encoder_decoder"), "outside of the vocabulary of 300")


@pytest.fixture(scope="module")
def run_with_added_sentinels(trainer, tiny_corpus, plain_corpus, tmp_path_factory):
    """Two steps of span corruption on token files that were made before anybody thought of sentinels."""
    folder = tmp_path_factory.mktemp("added") / "run"
    flags = {**plain_corpus, "objective": "span_corruption", "hidden_dropout": 0.0, "attention_dropout": 0.0}
    words = tiny_corpus.flags(save=folder, train_iters=2, add_special_tokens="sentinels", **flags)
    ended = trainer.finish(words, architecture="prefix_decoder")
    assert "--add-special-tokens sentinels: 100 new ids, 300 to 399" in ended.output
    return folder, flags


def test_sentinels_for_a_vocabulary_without(run_with_added_sentinels, trainer, tiny_corpus):
    """The run goes on with the same ids, and with no others."""
    folder, flags = run_with_added_sentinels
    before = listing(folder)
    for added in (None, "mode_tokens", "mode_tokens sentinels"):
        words = tiny_corpus.flags(save=folder, train_iters=4, add_special_tokens=added, **flags)
        ended = trainer.run(words, architecture="prefix_decoder")
        assert_refused(ended, f"--add-special-tokens is {added or 'left out'} here and sentinels in {folder}; do as")
    assert listing(folder) == before
    words = tiny_corpus.flags(save=folder, train_iters=4, add_special_tokens="sentinels", **flags)
    trainer.finish(words, architecture="prefix_decoder")
    losses = losses_of(folder)
    assert sorted(losses) == [1, 2, 3, 4]
    # A fresh model knows nothing of its 400 words; the 112 rows of padding are none of them.
    assert losses[1] == pytest.approx(np.log(400), rel=0.02)


@pytest.mark.parametrize(
    ("architecture", "objective", "added", "prompt"),
    [
        ("encoder_decoder", "ul2", "mode_tokens sentinels", "[S]the statement <extra_id_0>"),
        ("causal_decoder", "fill_in_the_middle", "fim_tokens", "<fim_prefix>the<fim_suffix> is<fim_middle>"),
    ],
)
def test_every_kind_of_token_is_trained_and_prompted_with(
    architecture, objective, added, prompt, trainer, tiny_corpus, plain_corpus, tmp_path, capsys
):
    flags = {**plain_corpus, "objective": objective, "add_special_tokens": added, "train_iters": 2}
    trainer.finish(tiny_corpus.flags(save=tmp_path / "run", **flags), architecture=architecture)
    words = ["--load", str(tmp_path / "run"), "--device", "cpu", "--max-new-tokens", "4", "--special-tokens"]
    generate_main([*words, "--prompt", prompt])
    assert capsys.readouterr().out.replace(" ", "").startswith(prompt.replace(" ", ""))


def test_the_added_tokens_are_found_again_for_generation(run_with_added_sentinels, capsys):
    folder, _ = run_with_added_sentinels
    words = ["--load", str(folder), "--device", "cpu", "--prompt"]
    generate_main([*words, "the statement", "--max-new-tokens", "4"])
    assert capsys.readouterr().out.startswith("the statement")
    generate_main([*words, "the <extra_id_0> is", "--special-tokens", "--max-new-tokens", "24", "--temperature", "9"])
    text = capsys.readouterr().out
    assert text.startswith("the <extra_id_0> is") and text.count("<extra_id_") > 1
    with pytest.raises(UserError) as caught:  # a prefix that is longer than the row
        generate_main([*words, "the statement " * 40, "--max-new-tokens", "4"])
    assert "do not fit the model's rows; shorten it to 28 tokens." in str(caught.value)
