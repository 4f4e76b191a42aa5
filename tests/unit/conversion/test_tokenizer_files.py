"""What is exported opens as transformers' own tokenizer and gives the ids that training saw."""

import ast
import json
import random
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import sentencepiece
import tokenizers
from transformers import AutoTokenizer

from megatron.basics.errors import UserError
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.tokenizer_files import export_tokenizer, import_tokenizer
from megatron.conversion.tokenizer_parity import TokenizerParity, compare_tokenizers, compare_what_is_around
from megatron.modeling.options import ModelOptions
from megatron.tokenization.options import TrainTokenizerOptions
from megatron.tokenization.tokenizer import load_tokenizer
from megatron.tokenization.train import train_to_files


def docstrings():
    """Of modules that the export itself does not look at."""
    found = []
    for module in (ast, json, random):
        tree = ast.parse(Path(module.__file__).read_text("utf-8"))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        found += [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
    paragraphs = [part for topic in topics.values() for part in topic.split("\n\n")][::20]
    return [text for text in found if text] + paragraphs


TEXTS = docstrings()


def described(architecture="causal_decoder", **settings):
    return DescribedModel(
        architecture=architecture, model=ModelOptions(), vocabulary_size=1000, max_positions=4096, **settings
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """SentencePiece models by kind: of ours, and as T5's and Llama's are made."""
    folder = tmp_path_factory.mktemp("models")
    learnt = list(topics.values())[::3]
    lines = [line for topic in learnt for line in topic.split("\n") if line.strip()]

    def train(name, **settings):
        prefix = str(folder / name)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_prefix=prefix, minloglevel=2, **settings
        )
        return f"{prefix}.model"

    ours = TrainTokenizerOptions(output_prefix=str(folder / "bpe"), vocab_size=800, model_type="bpe")
    train_to_files(iter(learnt), ours)
    return {
        "our bpe": str(folder / "bpe.model"),
        "t5": train("t5", vocab_size=600, pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
        "llama": train(
            "llama",
            vocab_size=700,
            model_type="bpe",
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
        ),
        "user": train(
            "user", vocab_size=700, byte_fallback=True, user_defined_symbols=["<mask>", "statement", "module"]
        ),
        "user bpe": train("user_bpe", vocab_size=700, model_type="bpe", user_defined_symbols=["for"]),
        "characters": train("characters", model_type="char", vocab_size=100),
    }


@pytest.fixture
def load(models, sentencepiece_model):
    def load_kind(kind, added=()):
        source = str(sentencepiece_model) if kind == "our unigram" else models[kind]
        return load_tokenizer("SentencePieceTokenizer", source, added)

    return load_kind


def export(tokenizer, folder, **settings):
    """The proof, and what transformers makes of the folder."""
    folder.mkdir(exist_ok=True)
    proof = export_tokenizer(tokenizer, folder, described(**settings))
    return proof, AutoTokenizer.from_pretrained(str(folder))


@pytest.mark.parametrize("kind", ["our unigram", "our bpe", "t5", "llama", "user"])
def test_the_same_ids_and_the_same_text(kind, load, tmp_path):
    tokenizer = load(kind)
    proof, theirs = export(tokenizer, tmp_path)
    assert len(TEXTS) >= 200 and proof.texts >= 500
    assert "bpe" not in kind or proof.ties == 0
    ties = 0
    for text in TEXTS:
        ours = tokenizer.encode(text)
        got = theirs(text, add_special_tokens=False).input_ids
        assert sorted(got) == sorted(ours), text  # a unigram model may put equal pieces in another order
        ties += got != ours
        if tokenizer.special.unknown not in ours:
            assert theirs.decode(ours, skip_special_tokens=True) == tokenizer.decode(ours)
    assert ties <= (0 if "bpe" in kind or kind == "llama" else len(TEXTS) // 50)


@pytest.mark.parametrize("kind", ["our unigram", "our bpe", "t5"])
def test_names_in_a_text_are_tokens_unless_they_are_split(kind, load, tmp_path):
    tokenizer = load(kind, ["sentinels", "mode_tokens"])
    _, theirs = export(tokenizer, tmp_path)
    text = "one <extra_id_0> statement <extra_id_1> module"
    assert theirs(text, add_special_tokens=False).input_ids == tokenizer.encode_with_special(text)
    for name in ("</s>", "[S]", "<0x0A>", "<unk>", text):
        as_characters = theirs(f"a {name} b", add_special_tokens=False, split_special_tokens=True).input_ids
        assert as_characters == tokenizer.encode(f"a {name} b"), name
    assert len(theirs) == tokenizer.vocabulary_size
    assert (theirs.eos_token_id, theirs.pad_token_id) == (tokenizer.eod_id, tokenizer.pad_id)
    assert theirs.unk_token_id == tokenizer.special.unknown
    again = load_tokenizer(*map(str, import_tokenizer(tmp_path, tmp_path / "run")))
    assert again.special == tokenizer.special and again.vocabulary_size == tokenizer.vocabulary_size


@pytest.mark.parametrize("kind", ["our unigram", "llama"])
def test_what_has_come_leaves_again_as_it_was(kind, load, tmp_path):
    first, _ = export(load(kind, ["sentinels"]), tmp_path / "first", architecture="encoder_decoder")
    come = load_tokenizer(*map(str, import_tokenizer(tmp_path / "first", tmp_path / "run")))
    again, _ = export(come, tmp_path / "again", architecture="encoder_decoder")
    assert again.ties == 0 and again.texts < first.texts  # what names do in a text is the folder's own affair
    files = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    for name in files:
        written = [json.loads((tmp_path / folder / name).read_text("utf-8")) for folder in ("first", "again")]
        assert written[0] == written[1], name


def test_pieces_of_equal_score_are_not_taken_for_one_another(load, tmp_path):
    """Both are as likely, and each has the row of the other's word."""
    tokenizer = load("user")
    export(tokenizer, tmp_path / "out")
    text = "one statement\ntwo module module\nnone of both\n"
    assert compare_tokenizers(tokenizer, tmp_path / "out", text, with_code=False).is_same
    path = tmp_path / "out" / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    pieces = content["model"]["vocab"]
    one, other = (next(entry for entry in pieces if entry[0] == name) for name in ("statement", "module"))
    assert one[1] == other[1]
    one[0], other[0] = other[0], one[0]
    path.write_text(json.dumps(content), "utf-8")
    parity = compare_tokenizers(tokenizer, tmp_path / "out", text, with_code=False)
    assert parity.is_same is False and "other ids in 2 of 3 lines, first in 'one statement'" in parity.remark


def test_what_stands_around_texts(load, tmp_path):
    tokenizer = load("llama")
    ids, end, start = tokenizer.encode("one two"), tokenizer.eod_id, 1
    for number, (settings, before, behind) in enumerate(
        (
            ({"architecture": "encoder_decoder"}, [], [end]),
            ({"architecture": "encoder_decoder", "ends_inputs": False}, [], []),
            ({}, [], []),
            ({"begins_with_start_token": True, "start_token": start}, [start], []),
        )
    ):
        _, theirs = export(tokenizer, tmp_path / str(number), **settings)
        assert theirs("one two").input_ids == [*before, *ids, *behind]
        assert theirs("one two", "one two").input_ids == [*before, *ids, *behind, *ids, *behind]
        seen = compare_what_is_around(
            TokenizerParity(True, "the same"),
            tokenizer,
            tmp_path / str(number),
            described(**settings),
            with_code=False,
            is_export=True,
        )
        names = [f", {tokenizer.piece(token)} in front of texts" for token in before]
        names += [f", {tokenizer.piece(token)} behind texts" for token in behind]
        assert seen == TokenizerParity(True, "".join(["the same", *names]))
        assert theirs.bos_token_id == start  # its own, whether texts begin with it or not
        assert theirs.decode(theirs("one two").input_ids, skip_special_tokens=True) == "one two"


def byte_level_folder(folder):
    """A folder as GPT-2's is, trained on the spot."""
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(topics.values(), vocab_size=500, special_tokens=["<|endoftext|>"])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder


def test_a_hugging_face_folder_with_added_tokens(tmp_path):
    source = str(byte_level_folder(tmp_path / "gpt2"))
    tokenizer = load_tokenizer("HuggingFaceTokenizer", source, ["sentinels"])
    proof, theirs = export(tokenizer, tmp_path / "export", architecture="encoder_decoder")
    assert proof.ties == 0 and len(theirs) == tokenizer.vocabulary_size == 600
    assert theirs.convert_tokens_to_ids("<extra_id_0>") == tokenizer.sentinel_ids[0] == 599
    for text in TEXTS:
        assert theirs(text).input_ids == [*tokenizer.encode(text), tokenizer.eod_id]


def test_ends_that_the_config_of_the_model_alone_names_come_along(tmp_path):
    """As in the folder of the first GPT-2, whose tokenizer files name no special token."""
    byte_level_folder(tmp_path / "theirs")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / "theirs" / name).unlink(missing_ok=True)
    vocabulary = json.loads((tmp_path / "theirs" / "tokenizer.json").read_text())["model"]["vocab"]
    end = vocabulary["e"]
    with pytest.raises(UserError, match="names no eos_token"):
        import_tokenizer(tmp_path / "theirs", tmp_path / "run")
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({"bos_token_id": 10**9, "eos_token_id": end}))
    loaded = load_tokenizer(*map(str, import_tokenizer(tmp_path / "theirs", tmp_path / "run")), [])
    assert loaded.special.end == end and loaded.special.begin is None
    assert not (tmp_path / "run" / "tokenizer" / "config.json").exists()


@pytest.mark.parametrize("is_file", [True, False])
def test_chat_templates_come_and_leave(is_file, tmp_path):
    folder = byte_level_folder(tmp_path / "chat")
    hello = "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}"
    if is_file:
        (folder / "chat_template.jinja").write_text(hello)
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "loud.jinja").write_text(hello.upper())
    else:
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": hello}))
    come = load_tokenizer(*map(str, import_tokenizer(folder, tmp_path / "run")))
    _, theirs = export(come, tmp_path / "out")
    was = AutoTokenizer.from_pretrained(str(folder))
    assert theirs.chat_template == was.chat_template and ("loud" in was.chat_template) == is_file
    spoken = [{"role": "user", "content": "to be"}]
    assert theirs.apply_chat_template(spoken, tokenize=False) == "[user]to be"
    assert theirs.apply_chat_template(spoken)["input_ids"] == was.apply_chat_template(spoken)["input_ids"]


def test_what_no_folder_can_hold(load, tmp_path):
    for kind, reason in (("characters", "neither a unigram nor a bpe"), ("user bpe", "does the same: for 'The")):
        with pytest.raises(UserError, match=reason):
            export_tokenizer(load(kind), tmp_path, described())
    assert not list(tmp_path.iterdir())


def test_a_changed_model_file(load, tmp_path):
    path = tmp_path / "v.model"
    tokenizer = load("our bpe")
    path.write_bytes(Path(tokenizer.source).read_bytes() + b"\x12\x02\x20\x01")
    tokenizer.source = str(path)
    with pytest.raises(UserError, match="has changed since"):
        export_tokenizer(tokenizer, tmp_path, described())


def test_a_folder_without_a_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="give --tokenizer-type and --tokenizer-model"):
        import_tokenizer(tmp_path, tmp_path / "run")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        import_tokenizer(tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()
