"""Folders made with the tokenizers library, held against transformers' own reading of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from megatron.basics.errors import UserError
from megatron.tokenization.tokenizer import Tokenizer, load_tokenizer
from megatron.tokenization.word_starts import WordStarts

TEXTS = list(topics.values())[:30]
PLAIN = ["The quick brown fox, it's 12:30.", "if x:\n    return  y", "naïve 你好", ""]
NAMES = "an </s> [MASK] <|endoftext|>"


def gpt2_like() -> tuple[Library, dict[str, str]]:
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=600, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    )
    return library, {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}


def bert_like() -> tuple[Library, dict[str, str]]:
    library = Library(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    library.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=600, special_tokens=names))
    library.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    roles = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"]
    return library, dict(zip(roles, names, strict=True))


def t5_like() -> tuple[Library, dict[str, str]]:
    library = Library(models.Unigram())
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    names = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=600, special_tokens=names, unk_token="<unk>")
    library.train_from_iterator(TEXTS, trainer)
    library.add_special_tokens(["[NLG]", "[NLU]", "[S2S]", *(f"<extra_id_{number}>" for number in range(9, -1, -1))])
    return library, {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


FAMILIES: dict[str, Callable[[], tuple[Library, dict[str, str]]]] = {
    "gpt2": gpt2_like,
    "bert": bert_like,
    "t5": t5_like,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved tokenizer of each family."""
    made = {}
    for name, make in FAMILIES.items():
        made[name] = tmp_path_factory.mktemp(name)
        library, special = make()
        library.enable_truncation(8)
        library.enable_padding(length=8, pad_token=special.get("pad_token", "<|endoftext|>"))
        library.save(str(made[name] / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
        (made[name] / "tokenizer_config.json").write_text(json.dumps(config))
    return made


def load(folder: Path) -> Tokenizer:
    return load_tokenizer("HuggingFaceTokenizer", str(folder))


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_of_transformers(folders: dict[str, Path], family: str) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(folders[family]), local_files_only=True)
    ours = load(folders[family])
    texts = [*TEXTS, *PLAIN, *([] if family == "t5" else [NAMES])]  # transformers finds T5's </s> in text, we do not
    expected = theirs(texts, add_special_tokens=False, split_special_tokens=True, truncation=False)["input_ids"]
    assert [list(ids) for ids in ours.encode_batch(texts)] == expected
    assert all(ids.dtype == np.int32 for ids in ours.encode_batch(texts))
    assert ours.vocabulary_size == len(theirs)
    assert ours.decode(expected[0]) == theirs.decode(expected[0], skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_text_makes_no_special_token(folders: dict[str, Path], family: str) -> None:
    tokenizer = load(folders[family])
    special = set(tokenizer.special.ids()) - {tokenizer.special.unknown}
    for name in ["</s>", "<|endoftext|>", "[SEP]", "[MASK]", "<pad>", "<extra_id_0>"]:
        assert not special & set(tokenizer.encode(f"a {name} b{name}{name}"))


def test_special_tokens_of_each_family(folders: dict[str, Path]) -> None:
    gpt2, bert, t5 = (load(folders[family]) for family in FAMILIES)
    assert (gpt2.eod_id, gpt2.pad_id, gpt2.mask_id, gpt2.sentinel_ids) == (0, 0, None, ())
    assert (bert.eod_id, bert.pad_id, bert.mask_id, bert.special.classification) == (3, 0, 4, 2)
    last = t5.vocabulary_size - 1
    assert (t5.eod_id, t5.pad_id, t5.sentinel_ids) == (1, 0, tuple(range(last, last - 10, -1)))
    assert t5.special.mode_tokens == (last - 11, last - 10, last - 12)  # R, S and X, as Hugging Face's UL2 has them


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_what_white_space_parts(folders: dict[str, Path], family: str) -> None:
    tokenizer = load(folders[family])
    words = ["the", "interpreter", "does", "not", "encounter", "unparenthesised", "expressions"]
    ids = np.array(tokenizer.encode(" ".join(words)), dtype=np.int32)
    groups = np.split(ids, np.flatnonzero(WordStarts.of(tokenizer)(ids))[1:])
    assert [tokenizer.decode(group).strip().replace("##", "") for group in groups] == words
    assert len(ids) > len(words)


@pytest.mark.parametrize("family", FAMILIES)
def test_half_a_character_is_no_text(folders: dict[str, Path], family: str) -> None:
    """JSON can say it: "\\ud800"."""
    tokenizer = load(folders[family])
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode_batch(["a word", "half \ud800"])
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode_with_special("half \ud800")


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
def test_byte_level_gives_any_text_back(folders: dict[str, Path], text: str) -> None:
    tokenizer = load(folders["gpt2"])
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_fingerprint_is_that_of_the_vocabulary(folders: dict[str, Path], tmp_path: Path) -> None:
    assert len({load(folder).fingerprint for folder in folders.values()}) == 3
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).write_bytes((folders["gpt2"] / name).read_bytes())
    config = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 77}))
    assert load(copy).fingerprint == load(folders["gpt2"]).fingerprint


def test_folder_without_tokenizer_json_is_converted(folders: dict[str, Path], tmp_path: Path) -> None:
    bert = Library.from_file(str(folders["bert"] / "tokenizer.json"))
    vocabulary = sorted(bert.get_vocab(), key=bert.get_vocab().__getitem__)
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    names = json.loads((folders["bert"] / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**names, "tokenizer_class": "BertTokenizer"}))
    assert [list(ids) for ids in load(tmp_path).encode_batch(PLAIN)] == [
        list(ids) for ids in load(folders["bert"]).encode_batch(PLAIN)
    ]


def test_transformers_is_not_imported_for_tokenizer_json(folders: dict[str, Path]) -> None:
    program = (
        "import sys; from megatron.tokenization.tokenizer import load_tokenizer;"
        f"load_tokenizer('HuggingFaceTokenizer', {str(folders['gpt2'])!r});"
        "assert 'transformers' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_nobody_is_asked_to_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would ask at a terminal, and run it after a yes."""
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[SEP]\na\n")
    settings = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "evil.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    with pytest.raises(UserError, match=r"has no tokenizer\.json, and transformers cannot make one of its files"):
        load_tokenizer("HuggingFaceTokenizer", str(tmp_path))
    assert not asked and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_file_that_is_larger_than_any_of_its_kind(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    for file in folders["gpt2"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    os.truncate(tmp_path / name, 10**10)  # a hole, which takes no room on the disk
    with pytest.raises(UserError, match=f"{name} has 10 GB, and at most"):
        load_tokenizer("HuggingFaceTokenizer", str(tmp_path))


def test_bad_folders_are_answered_by_one_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    def broken(**files: str) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            (folder / f"{name}.json").write_text(content)
        return folder

    gpt2 = (folders["gpt2"] / "tokenizer.json").read_text()
    for folder, message in [
        (folders["gpt2"] / "tokenizer.json", "is not a folder"),
        (tmp_path / "nowhere", "is not a folder"),
        (broken(), "holds no tokenizer.json nor another"),
        (broken(tokenizer="{"), "cannot be read"),
        (broken(vocab="{}"), "transformers cannot make one"),
        (broken(tokenizer=gpt2), "names no eos_token or sep_token"),
        (broken(tokenizer=gpt2, tokenizer_config='{"eos_token": "<end>"}'), "names no eos_token or sep_token"),
        (broken(tokenizer=gpt2, tokenizer_config="[]"), "is not a JSON object"),
    ]:
        with pytest.raises(UserError, match=message):
            load(folder)
