"""From options to sources: splits, blends, and every fault at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from token_file_samples import numbered_documents, write_token_file

from megatron.basics.errors import UserError
from megatron.data.options import DataOptions
from megatron.data.sources import WindowRules, build_sources

RULES = WindowRules(window_length=9, stride=8, seed=1)


@pytest.fixture
def corpora(tmp_path: Path) -> list[str]:
    """Two corpora: token ids 0..999 and 0..1999, ten and twenty documents of 100 tokens."""
    for name, documents in (("a", 10), ("b", 20)):
        write_token_file(tmp_path / name, numbered_documents([100] * documents))
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def seen(source: object, samples: int) -> set[int]:
    return {int(token) for sample in range(samples) for token in source.windows(sample)[0].tokens}  # type: ignore[attr-defined]


def test_splits_share_a_file_by_documents(corpora: list[str]) -> None:
    options = DataOptions(data_path=corpora[:1], split="80,10,10")
    sources = build_sources(options, RULES, splits=("train", "valid", "test"))
    assert seen(sources["train"], 100) == set(range(800))
    assert seen(sources["valid"], 100) == set(range(800, 897))  # fixed cuts: 12 whole windows and a last label
    assert seen(sources["test"], 100) == set(range(900, 997))


def test_own_files_for_training_and_validation_are_used_whole(corpora: list[str]) -> None:
    options = DataOptions(train_data_path=corpora[:1], valid_data_path=corpora[1:])
    sources = build_sources(options, RULES, splits=("train", "valid", "test"))
    assert seen(sources["train"], 125) == set(range(1000))
    assert seen(sources["valid"], 250) == set(range(2000))
    assert sources["test"] is None


def test_a_split_without_a_share_has_no_source(corpora: list[str]) -> None:
    assert build_sources(DataOptions(data_path=corpora[:1], split="1"), RULES)["valid"] is None


def test_blends_take_their_weights_in_every_split(corpora: list[str]) -> None:
    options = DataOptions(data_path=["3", corpora[0], "1", corpora[1]], split="50,50,0")
    sources = build_sources(options, RULES)
    # validation of a lies in 500..999, of b in 1000..1999
    from_b = [int(sources["valid"].windows(sample)[0].tokens[0]) >= 1000 for sample in range(400)]  # type: ignore[union-attr]
    assert sum(from_b) == 100


def test_the_same_file_twice_in_a_blend_is_read_in_two_orders(corpora: list[str]) -> None:
    blend = build_sources(DataOptions(data_path=["1", corpora[0], "1", corpora[0]], split="1"), RULES)["train"]
    first, second = (part.windows(0)[0].tokens for part in blend.sources)  # type: ignore[union-attr]
    assert not np.array_equal(first, second)


def test_a_moved_corpus_keeps_its_order(corpora: list[str], tmp_path: Path) -> None:
    before = build_sources(DataOptions(data_path=corpora[:1], split="1"), RULES)["train"]
    (tmp_path / "elsewhere").mkdir()
    write_token_file(tmp_path / "elsewhere" / "c", numbered_documents([100] * 10))
    after = build_sources(DataOptions(data_path=[str(tmp_path / "elsewhere" / "c")], split="1"), RULES)["train"]
    assert before is not None and after is not None
    for sample in range(200):
        assert np.array_equal(before.windows(sample)[0].tokens, after.windows(sample)[0].tokens)


def test_every_fault_of_every_file_is_told_at_once(corpora: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"xx")
    options = DataOptions(
        data_path=["1", corpora[0], "1", str(tmp_path / "nowhere"), "1", corpora[1]], split="99.9,0.1"
    )
    with pytest.raises(UserError) as caught:
        build_sources(options, RULES)
    assert [fault.split(" ")[0].rsplit("/", 1)[1] for fault in caught.value.faults] == ["a.bin", "nowhere.idx", "b.bin"]
    assert "0 tokens for valid" in caught.value.faults[2]


@pytest.mark.parametrize("options", [DataOptions(), DataOptions(data_path=["x"], split="0,1,0")])
def test_training_without_text_is_refused(options: DataOptions) -> None:
    with pytest.raises(UserError, match="--data-path"):
        build_sources(options, RULES, splits=("train",))


def test_the_tokenizer_is_compared(corpora: list[str]) -> None:
    source = build_sources(DataOptions(data_path=corpora[:1], split="1"), RULES, vocabulary_size=500)["train"]
    assert source is not None
    with pytest.raises(UserError, match="outside of the vocabulary of 500"):
        seen(source, 125)
