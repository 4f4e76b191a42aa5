"""What is refused of data sets of examples: one sentence with the file and the mend."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pair_samples import write_pairs
from token_file_samples import write_token_file

from megatron.basics.errors import UserError
from megatron.data.options import DataOptions
from megatron.data.pair_file import open_pair_file
from megatron.data.pair_sources import build_pair_sources
from megatron.data.token_file_writer import token_file_writer
from megatron.records.room import Room

DECODER, TWO_ROWS = Room(33, 33, 33, 1), Room(24, 12, 36)
PAIRS = [([5, 6], [7]), ([8], [9, 10])]


@dataclass
class StandIn:
    """As much of a tokenizer as a token file's facts are made of."""

    tokenizer_type: str = "SentencePieceTokenizer"
    fingerprint: str = "a" * 64
    vocabulary_size: int = 100


def sources_of(room: Room, **options: object) -> dict[str, object]:
    return {**build_pair_sources(DataOptions(**options), room, seed=1)}  # type: ignore[arg-type]


def test_examples_are_read_with_their_inputs_first(tmp_path: Path) -> None:
    file = open_pair_file(write_pairs(tmp_path / "set", PAIRS))
    assert file.num_examples == 2
    read = [file.read(example, DECODER) for example in range(2)]
    assert [(tokens.tolist(), inputs) for tokens, inputs in read] == [([5, 6, 7], 2), ([8, 9, 10], 1)]
    sizes, cut = file.sizes(range(2), DECODER)
    assert (sizes.tolist(), cut) == ([[2, 2], [1, 3]], 0)


@pytest.mark.parametrize("missing", ["_inputs.bin", "_targets.idx"])
def test_a_missing_half(tmp_path: Path, missing: str) -> None:
    prefix = write_pairs(tmp_path / "set", PAIRS)
    Path(prefix + missing).unlink()
    with pytest.raises(UserError, match=rf"set lacks .*set{re.escape(missing)}; check the path, or make both anew"):
        open_pair_file(prefix)


def test_text_and_halves_are_no_data_sets(tmp_path: Path) -> None:
    write_token_file(tmp_path / "text", [[[1, 2]]])
    with pytest.raises(UserError, match="text is text and not inputs with targets"):
        open_pair_file(str(tmp_path / "text"))
    prefix = write_pairs(tmp_path / "set", PAIRS)
    with pytest.raises(UserError, match=f"is one half of a data set; name it by its prefix, {re.escape(prefix)}"):
        open_pair_file(prefix + "_inputs")


def test_files_are_named_by_what_they_are_part_of(tmp_path: Path) -> None:
    prefix = write_pairs(tmp_path / "set", PAIRS)
    for named in ("_inputs.bin", "_targets.idx"):
        with pytest.raises(UserError, match=f"{named} is one half of a data set; name it by its prefix, {prefix}\\."):
            open_pair_file(prefix + named)
    with pytest.raises(UserError, match=rf"set\.bin is part of a data set; name it by its prefix, {prefix}\."):
        open_pair_file(f"{prefix}.bin")
    Path(f"{prefix}_targets.idx").unlink()
    with pytest.raises(UserError) as told:
        open_pair_file(f"{prefix}_inputs.bin")
    assert str(told.value).startswith(f"{prefix}_inputs.bin is part of a data set that lacks {prefix}_targets.idx; ")
    write_token_file(tmp_path / "text", [[[1, 2]]])
    with pytest.raises(UserError, match=r"text\.bin is text and not inputs with targets"):
        open_pair_file(str(tmp_path / "text.bin"))
    with pytest.raises(UserError, match=r"nothing lacks .*nothing_inputs\.bin and "):
        open_pair_file(str(tmp_path / "nothing"))


def test_numbers_of_examples_that_differ(tmp_path: Path) -> None:
    prefix = write_pairs(tmp_path / "set", PAIRS)
    write_token_file(Path(prefix + "_targets"), [[[1]], [[2]], [[3]]])
    with pytest.raises(UserError, match=r"set_inputs\.bin holds 2 examples and .*set_targets\.bin 3"):
        open_pair_file(prefix)


@pytest.mark.parametrize(
    ("ended", "reason"), [("_inputs", "no end token stands"), ("_targets", "training adds the end")]
)
def test_end_tokens_and_tokens_of_another_vocabulary(tmp_path: Path, ended: str, reason: str) -> None:
    prefix = str(tmp_path / "set")
    for suffix, eod_id in (("_inputs", None), ("_targets", None), (ended, 1)):
        with token_file_writer(prefix + suffix, np.uint16) as writer:
            writer.append(np.array([5, 6], np.uint16), np.array([2], np.int32))
            writer.seal(StandIn(), eod_id)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"set{ended}\.bin was made with --append-eod, and {reason}"):
        open_pair_file(prefix)
    with pytest.raises(UserError, match="was made by another tokenizer"):
        open_pair_file(prefix, tokenizer_fingerprint="b" * 64)
    facts = Path(f"{prefix}{ended}.json")
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "eod_id": None}))
    assert open_pair_file(prefix, tokenizer_fingerprint="a" * 64, vocabulary_size=100).num_examples == 1


@pytest.mark.parametrize(("room", "limit", "flag"), [(DECODER, 32, "--seq-length"), (TWO_ROWS, 12, "--decoder-seq-l")])
def test_a_target_that_is_longer_than_a_row(tmp_path: Path, room: Room, limit: int, flag: str) -> None:
    fitting, too_long = ([1], [2] * (limit - 1)), ([1], [2] * limit)
    prefix = write_pairs(tmp_path / "set", [fitting, fitting, too_long])
    other = write_pairs(tmp_path / "other", [too_long])
    assert sources_of(room, train_data_path=[write_pairs(tmp_path / "fits", [fitting])])
    with pytest.raises(UserError) as caught:
        sources_of(room, train_data_path=["1", prefix, "1", other])
    sentence = (
        f": the target of example 2 and its end token are {limit + 1} tokens, and a row takes {limit}; raise {flag}"
    )
    assert len(caught.value.faults) == 2 and caught.value.faults[0].startswith(prefix + sentence)
    assert caught.value.faults[1].startswith(f"{other}: the target of example 0 ")


def test_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs = [([k], [k]) for k in range(5, 15)]
    prefix, tiny = write_pairs(tmp_path / "set", pairs), write_pairs(tmp_path / "tiny", pairs[:1])
    sources = sources_of(DECODER, data_path=["1", prefix, "1", tiny], split="8,2")
    assert f"warning: valid: --split 8,2 leaves no example of {tiny}, which" in caplog.text
    train, valid = sources["train"], sources["valid"]
    seen = {source: {w.tokens[0] for k in range(4) for w in source.windows(k)} for source in (train, valid)}  # type: ignore[attr-defined]
    assert seen[train] == set(range(5, 13)) and seen[valid] == {13, 14}  # of the tiny one nothing
    with pytest.raises(UserError, match="tiny holds 0 examples for valid"):
        sources_of(DECODER, data_path=[tiny], split="8,2")
    with pytest.raises(UserError, match="set holds 0 examples for train"):
        sources_of(DECODER, data_path=[prefix], split="1,99")
    assert sources_of(DECODER, train_data_path=[prefix])["valid"] is None
    with pytest.raises(UserError, match="names no examples to train on"):
        sources_of(DECODER)
