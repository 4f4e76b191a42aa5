"""Words without a token get names that no text becomes."""

import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers

from megatron.conversion.unused_words import name_unused_words


@pytest.fixture
def tokenizer(tmp_path):
    """A function from a vocabulary to the folder of its tokenizer."""

    def make(vocabulary):
        fast = FastTokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        fast.pre_tokenizer = pre_tokenizers.Whitespace()
        fast.save(str(tmp_path / "tokenizer.json"))
        return tmp_path

    return make


def test_the_vocabulary_becomes_as_long_as_the_table(tokenizer):
    folder = tokenizer({"<unk>": 0, "to": 1, "be": 2})
    assert name_unused_words(folder, 6)
    fast = FastTokenizer.from_file(str(folder / "tokenizer.json"))
    assert fast.get_vocab_size() == 6
    assert [fast.id_to_token(token) for token in (3, 4, 5)] == ["<unused_3>", "<unused_4>", "<unused_5>"]
    assert fast.encode("to be", add_special_tokens=True).ids == [1, 2]
    assert fast.decode([1, 4, 2], skip_special_tokens=True) == "to be"


def test_a_vocabulary_that_leaves_out_ids_stays_as_it_is(tokenizer):
    folder = tokenizer({"<unk>": 0, "to": 1, "be": 5})
    before = (folder / "tokenizer.json").read_bytes()
    assert not name_unused_words(folder, 9)
    assert (folder / "tokenizer.json").read_bytes() == before
