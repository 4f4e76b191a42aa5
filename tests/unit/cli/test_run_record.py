"""run.json: what a run says of itself."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from megatron.basics.errors import UserError
from megatron.checkpoint.contents import Contents, Progress
from megatron.cli.run_config import RunConfig, parse_pretrain
from megatron.cli.run_record import (
    RUN_RECORD_NAME,
    require_same_model,
    require_same_run,
    tokenizer_record,
    write_run_record,
)
from megatron.tokenization.tokenizer import load_tokenizer


def test_every_start_is_kept(
    parse_run: Callable[..., RunConfig], sound_flags: list[str], sentencepiece_model: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    for iteration in (0, 7):
        write_run_record(tmp_path, parse_run(sound_flags), tokenizer, {"iteration": iteration})
    content = json.loads((tmp_path / RUN_RECORD_NAME).read_text())
    assert [start["iteration"] for start in content["starts"]] == [0, 7]
    assert content["starts"][1]["versions"]["sentencepiece"] == importlib.metadata.version("sentencepiece")
    assert RunConfig.from_dict(content["options"]) == parse_run(sound_flags)


def test_a_library_that_is_not_installed_is_no_fault(
    parse_run: Callable[..., RunConfig],
    sound_flags: list[str],
    sentencepiece_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run needs the library of its own tokenizer only."""
    version = importlib.metadata.version

    def version_without_transformers(name: str) -> str:
        if name == "transformers":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", version_without_transformers)
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    write_run_record(tmp_path, parse_run(sound_flags), tokenizer, {})
    (start,) = json.loads((tmp_path / RUN_RECORD_NAME).read_text())["starts"]
    assert start["versions"]["transformers"] is None and start["versions"]["torch"]


def test_added_tokens_keep_their_ids(
    parse_run: Callable[..., RunConfig], sound_flags: list[str], sentencepiece_model: Path, tmp_path: Path
) -> None:
    """Two vocabularies of one size whose last ids mean other things."""

    def start(*kinds: str) -> tuple[RunConfig, Contents]:
        config = parse_run([*sound_flags, *(["--add-special-tokens", *kinds] if kinds else [])])
        record = tokenizer_record(load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model), kinds))
        return config, Contents(progress=Progress(), run=config.as_dict(), tokenizer=record, lineage=[], optimizer={})

    _, contents = start("mode_tokens", "fim_tokens")
    for kinds in [("mode_tokens", "fim_tokens"), ("sentinels", "mode_tokens", "fim_tokens")]:  # it has sentinels
        tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model), kinds)
        require_same_model(contents, start(*kinds)[0], tokenizer, tmp_path)
    for kinds, told in [(("fim_tokens", "mode_tokens"), "fim_tokens mode_tokens"), ((), "left out")]:
        tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model), kinds)
        with pytest.raises(UserError) as caught:
            require_same_model(contents, start(*kinds)[0], tokenizer, tmp_path)
        assert caught.value.faults == (
            f"--add-special-tokens is {told} here and mode_tokens fim_tokens in {tmp_path}; do as there, or choose "
            "another folder.",
        )
    older = {**contents.tokenizer}
    del older["added"]  # as written before there were such tokens
    _, plain = start()
    config, _ = start("sentinels")
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model), ["sentinels"])
    require_same_model(replace(plain, tokenizer={**older, "vocabulary_size": 1000}), config, tokenizer, tmp_path)


def test_settings_that_a_record_is_older_than_had_their_defaults(
    parse_run: Callable[..., RunConfig], sound_flags: list[str], sentencepiece_model: Path, tmp_path: Path
) -> None:
    """Neither shows in a shape: a run that goes on with them computes another model from the same weights."""
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    plain = parse_run(sound_flags)
    record = plain.as_dict()
    for name in ("softmax_scale", "scale_logits"):
        del record["model"][name]
    contents = Contents(
        progress=Progress(), run=record, tokenizer=tokenizer_record(tokenizer), lineage=[], optimizer={}
    )
    require_same_model(contents, plain, tokenizer, tmp_path)
    with pytest.raises(UserError) as caught:
        changed = parse_run([*sound_flags, "--softmax-scale", "1", "--scale-logits"])
        require_same_model(contents, changed, tokenizer, tmp_path)
    assert caught.value.faults == (
        f"--softmax-scale is 1.0 here and None in {tmp_path}; leave it out, or choose another folder.",
        f"--scale-logits is True here and False in {tmp_path}; leave it out, or choose another folder.",
    )


def test_a_common_depth_that_counts_for_nothing_is_told_and_not_compared(
    sound_flags: list[str], sentencepiece_model: Path, tmp_path: Path
) -> None:
    """A run that was once given all three depths goes on without the one that had no effect."""

    def parse(*flags: str) -> RunConfig:
        legal = ("span_corruption",)
        kinds = {"architecture": "encoder_decoder", "default_objective": legal[0], "legal_objectives": legal}
        return parse_pretrain([*sound_flags, *flags], **kinds)

    both = ("--encoder-num-layers", "3", "--decoder-num-layers", "2")
    with pytest.raises(UserError) as caught:
        parse(*both, "--num-layers", "4")
    assert caught.value.faults == (
        "--num-layers has no effect with --encoder-num-layers and --decoder-num-layers; leave it out.",
    )
    assert parse(*both[:2], "--num-layers", "4").model.decoder_layers == 4
    config, tokenizer = parse(*both), load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    record = config.as_dict()
    record["model"]["num_layers"] = 4
    contents = Contents(
        progress=Progress(), run=record, tokenizer=tokenizer_record(tokenizer), lineage=[], optimizer={}
    )
    require_same_model(contents, config, tokenizer, tmp_path)
    with pytest.raises(UserError, match="--num-layers is 4 here and 12 in"):
        record["model"] |= {"num_layers": 12, "decoder_num_layers": None}
        require_same_model(contents, parse(*both[:2], "--num-layers", "4"), tokenizer, tmp_path)


def test_a_resume_tells_which_data_have_changed(
    parse_run: Callable[..., RunConfig],
    sound_flags: list[str],
    sentencepiece_model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The run goes on, as it does with other paths; what is told is what its order follows from."""
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    config = parse_run(sound_flags)
    folders = [tmp_path / "here", tmp_path / "there"]
    for folder in folders:
        folder.mkdir()
        for name in ("one", "two"):
            for kind in (".bin", ".idx"):
                (folder / f"{name}{kind}").write_bytes(b"1234")

    def told(folder: Path, *weights: str, split: str = "9,1") -> str:
        names = [
            word for pair in zip(weights, ("one", "two"), strict=False) for word in (pair[0], str(folder / pair[1]))
        ]
        now = replace(config, data=replace(config.data, data_path=names, split=split))
        caplog.clear()
        require_same_run(contents, now, tokenizer, tmp_path)
        return caplog.text

    data = replace(config.data, data_path=["1", str(folders[0] / "one"), "3", str(folders[0] / "two")], split="9,1")
    begun = replace(config, data=data)
    progress = Progress(consumed_samples=1234)
    record = tokenizer_record(tokenizer)
    contents = Contents(progress=progress, run=begun.as_dict(), tokenizer=record, lineage=[], optimizer={})
    assert told(folders[0], "1", "3") == ""  # without a record
    write_run_record(tmp_path, begun, tokenizer, {})
    assert told(folders[0], "1", "3") == told(folders[1], "2", "6") == ""  # moved, in the same ratio
    warning = told(folders[0], "1", "4")
    assert f"warning: the data are not those of the last start of {tmp_path}: {folders[0]}/two weighs 4 and" in warning
    assert "goes on at sample 1,234 of another order" in warning
    assert "--data-path names 1 data sets and named 2." in told(folders[0], "1")
    assert "--split is 8,2 and was 9,1." in told(folders[0], "1", "3", split="8,2")
    (folders[1] / "one.idx").write_bytes(b"12345")
    assert f": {folders[1]}/one has files of other sizes. The run" in told(folders[1], "1", "3")
