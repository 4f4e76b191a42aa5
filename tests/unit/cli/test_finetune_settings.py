"""What finetune_t0.py makes of a command line and the record of a run; no tensor is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from megatron.adaptation.options import AdaptationOptions
from megatron.basics.errors import UserError
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.manifest import Manifest
from megatron.cli.adapt import parse_adapt
from megatron.cli.figures import has_plainly_causal_masks
from megatron.cli.finetune import PURPOSE
from megatron.cli.run_config import RunConfig, parse_pretrain
from megatron.loop.options import OptimizerOptions

SOURCE_LENGTH = 96
OF_SOURCE = (
    *("--seq-length", str(SOURCE_LENGTH), "--position-embedding-type", "rope", "--pack-documents"),
    *("--lr", "0.5", "--min-lr", "0.1"),
)


@pytest.fixture
def data_set(tmp_path: Path) -> str:
    """Files that are there."""
    prefix = tmp_path / "copa"
    for name in ("_inputs.bin", "_inputs.idx", "_targets.bin", "_targets.idx"):
        Path(f"{prefix}{name}").touch()
    return str(prefix)


@pytest.fixture
def run(sound_flags: list[str], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A run folder whose checkpoint has settings and no tensors; its parameter: flags of the run."""
    flags = getattr(request, "param", ())
    config = parse_pretrain(
        [*sound_flags, *OF_SOURCE, *flags],
        architecture="causal_decoder",
        default_objective="full_lm",
        legal_objectives=("full_lm",),
    )
    return checkpoint_of(config, tmp_path / "source")


def checkpoint_of(config: RunConfig, run: Path) -> Path:
    contents = Contents(progress=Progress(), run=config.as_dict(), tokenizer={}, lineage=[], optimizer={})
    folder = run / "iter_0000004"
    folder.mkdir(parents=True)
    Manifest(tensors={}, files={}, contents=contents).write(folder)
    return run


def finetuned(run: Path, data_set: str, *flags: str) -> tuple[RunConfig, AdaptationOptions]:
    return parse_adapt(["--load", str(run), "--data-path", data_set, *flags], PURPOSE)


def test_t0s_settings(run: Path, data_set: str) -> None:
    config, options = finetuned(run, data_set, "--to", "prefix_decoder")
    assert (config.architecture, config.objective) == ("prefix_decoder", "multitask")
    assert (options.to, options.optimizer_state, options.schedule) == ("prefix_decoder", "fresh", "rewarm")
    assert (config.model.hidden_dropout, config.model.attention_dropout) == (0.1, 0.1)
    assert config.data.seq_length == 1280 and not config.data.pack_documents
    assert config.optimizer == OptimizerOptions(optimizer="adafactor", lr=1e-3, lr_decay_style="constant")
    assert not has_plainly_causal_masks(config)


def test_the_architecture_stays_unless_told(run: Path, data_set: str) -> None:
    config, options = finetuned(run, data_set)
    assert (config.architecture, options.to) == ("causal_decoder", "causal_decoder")
    assert not has_plainly_causal_masks(config)  # examples of a row are blind to one another


def test_an_encoder_decoder_has_two_lengths(run: Path, data_set: str) -> None:
    config, _ = finetuned(run, data_set, "--to", "encoder_decoder")
    assert (config.data.seq_length, config.data.decoder_seq_length) == (1024, 256)


@pytest.mark.parametrize("run", [("--position-embedding-type", "learned_absolute")], indirect=True)
def test_rows_are_no_longer_than_the_positions_that_were_learnt(run: Path, data_set: str) -> None:
    config, _ = finetuned(run, data_set)
    assert config.data.seq_length == SOURCE_LENGTH
    with pytest.raises(UserError, match="--max-position-embeddings"):
        finetuned(run, data_set, "--seq-length", "1280")


def test_what_is_given_wins(run: Path, data_set: str) -> None:
    flags = ("--seq-length", "300", "--hidden-dropout", "0", "--lr", "0.01", "--lr-decay-style", "linear")
    config, _ = finetuned(run, data_set, *flags, "--optimizer-state", "keep", "--optimizer", "adam")
    assert (config.data.seq_length, config.model.hidden_dropout) == (300, 0)
    assert config.optimizer == OptimizerOptions(lr=0.01, lr_decay_style="linear")
    adam, _ = finetuned(run, data_set, "--optimizer", "adam")
    assert adam.optimizer == OptimizerOptions(lr_decay_style="constant")  # adafactor's rate is none of adam's


def test_a_schedule_that_goes_on_keeps_the_rate(run: Path, data_set: str) -> None:
    flags = ("--schedule", "continue", "--optimizer-state", "keep")
    assert finetuned(run, data_set, *flags)[0].optimizer.lr == 0.5


def test_a_run_that_has_begun_goes_on_by_its_own_settings(run: Path, data_set: str, tmp_path: Path) -> None:
    first, _ = finetuned(run, data_set, "--to", "prefix_decoder", "--seq-length", "300", "--lr", "0.02")
    own = checkpoint_of(first, tmp_path / "own")
    for said_again in ([], ["--schedule", "rewarm"]):
        again, _ = parse_adapt(["--load", str(run), "--save", str(own), *said_again], PURPOSE)
        assert dataclasses.replace(again, checkpoint=first.checkpoint) == first


def test_data_of_another_kind(run: Path, data_set: str, inputs: Path) -> None:
    with pytest.raises(UserError, match=r"--data-path \S*corpus is text and not inputs with targets"):
        finetuned(run, str(inputs / "corpus"))
    with pytest.raises(UserError, match="--data-path is missing; give the PREFIX of a data set"):
        parse_adapt(["--load", str(run)], PURPOSE)  # that of the source is text
    with pytest.raises(
        UserError, match=r"--data-path \S*copa holds inputs with targets, and not text; train with fine"
    ):
        parse_adapt(["--load", str(run), "--to", "prefix_decoder", "--data-path", data_set])
    Path(f"{data_set}_targets.idx").unlink()
    with pytest.raises(UserError, match=r"--data-path \S*copa lacks \S*copa_targets.idx"):
        finetuned(run, data_set)


def test_a_command_line_without_a_run() -> None:
    with pytest.raises(UserError) as caught:
        parse_adapt([], PURPOSE)
    assert [fault.split(";")[0] for fault in caught.value.faults] == ["--load is missing"]


def test_flags_that_would_count_for_nothing(run: Path, data_set: str) -> None:
    with pytest.raises(UserError, match="--pack-documents has no effect with --objective multitask"):
        finetuned(run, data_set, "--pack-documents")
    with pytest.raises(UserError, match="--reset-position-ids has no effect with --objective multitask"):
        finetuned(run, data_set, "--reset-position-ids")
    with pytest.raises(UserError, match="--objective is not a known flag"):
        finetuned(run, data_set, "--objective", "full_lm")
