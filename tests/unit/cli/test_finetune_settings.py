"""What finetune_t0.py makes of a command line and the record of a run; no tensor is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from megatron.adaptation.options import AdaptationOptions
from megatron.basics.errors import UserError
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.manifest import Manifest
from megatron.cli import wire
from megatron.cli.adapt import parse_adapt
from megatron.cli.figures import has_plainly_causal_masks
from megatron.cli.finetune import PURPOSE
from megatron.cli.run_config import RunConfig, parse_pretrain
from megatron.data.options import DataOptions
from megatron.loop.options import OptimizerOptions
from megatron.records import visibility
from megatron.records.row import Row

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


@pytest.mark.parametrize("told", [{}, {"sequence_parallel": True}, {"objective": "full_lm"}], ids=str)
def test_the_head_reads_targets_alone(
    run: Path, data_set: str, told: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of prompts; not where ranks hold parts of the rows, and not of text."""
    config, _ = finetuned(run, data_set, "--micro-batch-size", "1")
    layout = dataclasses.replace(
        config.layout, tensor_model_parallel_size=2, sequence_parallel="sequence_parallel" in told
    )
    config = dataclasses.replace(config, layout=layout, objective=told.get("objective", config.objective))
    nothing = np.zeros(4, np.int32)
    row = Row(nothing, nothing, np.float32([0, 0, 1, 1]), nothing, visibility.causal(4))
    monkeypatch.setattr(wire, "build_rows", lambda *_: {"train": [row]})
    grid = SimpleNamespace(data_size=1, data_rank=0)
    device = SimpleNamespace(put=lambda tensor: tensor)
    with wire.build_loaders(config, None, grid, device)["train"] as loader:  # type: ignore[arg-type]
        (batch,) = loader.microbatches(0, 1)
    assert (batch.head_positions is None) == bool(told)
    if not told:
        assert batch.head_positions.tolist() == [[2, 3], [0, 0]]


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


RELATIVE = ("--position-embedding-type", "relative", "--max-position-embeddings", "512")


@pytest.mark.parametrize("run", [RELATIVE, ("--max-position-embeddings", "512")], indirect=True)
def test_positions_that_nobody_learnt_do_not_bind(run: Path, data_set: str, tmp_path: Path) -> None:
    """An import of a T5 has 512 of them: the length of its pretraining's rows."""
    config, _ = finetuned(run, data_set, "--to", "encoder_decoder")
    assert (config.data.seq_length, config.data.decoder_seq_length) == (1024, 256)
    assert config.model.max_position_embeddings == 1024
    assert finetuned(run, data_set)[0].model.max_position_embeddings == 1280
    config, _ = finetuned(run, data_set, "--seq-length", "2000", "--save", str(tmp_path / "own"))
    assert (config.data.seq_length, config.model.max_position_embeddings) == (2000, 2000)
    own = checkpoint_of(config, tmp_path / "own")
    assert parse_adapt(["--load", str(run), "--save", str(own)], PURPOSE)[0].model == config.model
    assert finetuned(run, data_set, "--seq-length", "300")[0].model.max_position_embeddings == 512
    with pytest.raises(UserError, match="--max-position-embeddings 600 is less than --seq-length 1280"):
        finetuned(run, data_set, "--max-position-embeddings", "600")


@pytest.mark.parametrize(
    "run", [("--optimizer", "adam", "--adam-beta2", "0.9"), ("--optimizer", "adafactor")], indirect=True
)
def test_an_optimizer_whose_state_is_kept_stays_what_it_was(run: Path, data_set: str) -> None:
    source = parse_adapt(["--load", str(run), "--to", "causal_decoder"])[0].optimizer
    config, options = finetuned(run, data_set, "--optimizer-state", "keep")
    assert (options.optimizer_state, options.schedule) == ("keep", "rewarm")
    rate = 1e-3 if source.optimizer == "adafactor" else OptimizerOptions.lr
    assert config.optimizer == OptimizerOptions(
        optimizer=source.optimizer, adam_beta2=source.adam_beta2, lr=rate, lr_decay_style="constant"
    )


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


def test_a_run_that_has_begun_becomes_no_other(run: Path, data_set: str, tmp_path: Path) -> None:
    first, _ = finetuned(run, data_set, "--to", "prefix_decoder")
    own = checkpoint_of(first, tmp_path / "own")
    with pytest.raises(UserError) as caught:
        finetuned(run, data_set, "--save", str(own), "--to", "causal_decoder")
    assert caught.value.faults == (
        f"--to causal_decoder is not the prefix_decoder of {own}, whose run has begun; pass prefix_decoder, or choose "
        "another --save.",
    )


def test_data_are_named_anew(run: Path, data_set: str, tmp_path: Path) -> None:
    """A finetuned run is finetuned on other tasks, or on the same; its share for validation was one of its data."""
    first, _ = finetuned(run, data_set, "--split", "1,1,0")
    source = checkpoint_of(first, tmp_path / "first")
    with pytest.raises(UserError, match="--data-path is missing; give the PREFIX of a data set"):
        parse_adapt(["--load", str(source)], PURPOSE)
    assert finetuned(source, data_set)[0].data.split == DataOptions.split


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
