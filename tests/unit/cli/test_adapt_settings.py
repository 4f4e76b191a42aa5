"""What adapt.py makes of a command line and the record of a run; no tensor is read."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron.basics.errors import UserError
from megatron.basics.option import Options
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.manifest import Manifest
from megatron.cli.adapt import parse_adapt
from megatron.cli.resume import ends_of_decay
from megatron.cli.run_config import RunConfig, parse_pretrain
from megatron.cli.run_record import lineage_line
from megatron.loop.options import OptimizerOptions
from megatron.loop.schedule import lr_at

SOURCE_STEPS = 4  # after which its checkpoint was written


@pytest.fixture
def make_run(sound_flags: list[str], tmp_path: Path) -> Callable[..., Path]:
    """make_run(architecture, objective, *flags): a run folder whose checkpoint has settings and no tensors."""

    def make_run(architecture: str, objective: str, *flags: str) -> Path:
        config = parse_pretrain(
            [*sound_flags, *flags],
            architecture=architecture,
            default_objective=objective,
            legal_objectives=(objective,),
        )
        return checkpoint_of(config, tmp_path / "source")

    return make_run


def checkpoint_of(config: RunConfig, run: Path) -> Path:
    """Let a run folder have a checkpoint; the folder."""
    contents = Contents(progress=Progress(), run=config.as_dict(), tokenizer={}, lineage=[], optimizer={})
    folder = run / f"iter_{SOURCE_STEPS:07d}"
    folder.mkdir(parents=True)
    Manifest(tensors={}, files={}, contents=contents).write(folder)
    return run


def adapted(run: Path, to: str, *flags: str) -> RunConfig:
    return parse_adapt(["--load", str(run), "--to", to, *flags])[0]


def test_model_data_and_optimizer_are_those_of_the_source(make_run: Callable[..., Path], inputs: Path) -> None:
    run = make_run("causal_decoder", "full_lm", "--hidden-size", "96", "--lr", "0.5", "--split", "9,1", "--seed", "7")
    config = adapted(run, "prefix_decoder", "--objective", "prefix_lm")
    assert (config.architecture, config.objective) == ("prefix_decoder", "prefix_lm")
    assert (config.model.hidden_size, config.optimizer.lr, config.data.split) == (96, 0.5, "9,1")
    assert config.data.data_path == [str(inputs / "corpus")]
    assert config.batch.seed == 1234  # data order and dropout of a run are its own


def test_a_schedule_of_its_own_leaves_the_other_optimizer_settings(make_run: Callable[..., Path]) -> None:
    schedule = ("--lr", "0.5", "--min-lr", "0.1", "--lr-decay-style", "linear", "--lr-warmup-iters", "7")
    others = ("--optimizer", "adafactor", "--bf16", "--z-loss-coeff", "1e-4", "--clip-grad", "2")
    run = make_run("causal_decoder", "full_lm", *schedule, *others)
    assert adapted(run, "prefix_decoder", "--schedule", "rewarm").optimizer == OptimizerOptions(
        optimizer="adafactor", bf16=True, z_loss_coeff=1e-4, clip_grad=2.0
    )


@pytest.mark.parametrize(
    "repeated",
    [
        ["--optimizer", "adam"],
        ["--lr-decay-style", "linear"],
        ["--bf16"],
        ["--fp16=false"],
        ["--data-path", "CORPUS"],
        ["--objective", "full_lm"],
    ],
)
def test_what_is_said_again_changes_nothing(make_run: Callable[..., Path], inputs: Path, repeated: list[str]) -> None:
    schedule = ("--lr", "0.5", "--lr-decay-style", "linear", "--lr-warmup-iters", "2", "--train-iters", "9")
    run = make_run("causal_decoder", "full_lm", *schedule, "--bf16", "--split", "9,1", "--weight-decay", "0.3")
    words = [word.replace("CORPUS", str(inputs / "corpus")) for word in repeated]
    assert adapted(run, "prefix_decoder", *words) == adapted(run, "prefix_decoder")
    assert adapted(run, "prefix_decoder").optimizer.bf16


def test_another_optimizer_leaves_precision_and_loss(make_run: Callable[..., Path]) -> None:
    flags = ("--fp16", "--initial-loss-scale", "256", "--z-loss-coeff", "1e-4", "--adam-beta2", "0.9")
    run = make_run("causal_decoder", "full_lm", *flags)
    changed = ("--optimizer", "adafactor", "--optimizer-state", "fresh")
    assert adapted(run, "prefix_decoder", *changed).optimizer == OptimizerOptions(
        optimizer="adafactor", fp16=True, initial_loss_scale=256.0, z_loss_coeff=1e-4
    )


@pytest.mark.parametrize(
    "decay",
    [
        ("--lr-decay-style", "linear"),
        ("--lr-decay-style", "cosine", "--min-lr", "0.01"),
        ("--lr-decay-style", "WSD", "--lr-wsd-decay-iters", "3"),
        ("--lr-decay-style", "cosine", "--lr-decay-iters", "7"),
        ("--lr-decay-style", "inverse-square-root"),
        ("--lr-decay-style", "constant"),
    ],
)
def test_the_learning_rate_goes_on(
    make_run: Callable[..., Path], decay: tuple[str, ...], parse_run: Callable[..., RunConfig], sound_flags: list[str]
) -> None:
    rates = ("--lr", "0.5", "--lr-warmup-iters", "2", *decay)
    run = make_run("causal_decoder", "full_lm", *rates, "--train-iters", "10")
    config = adapted(run, "prefix_decoder", "--train-iters", "20")
    source = parse_run([*sound_flags, *rates, "--train-iters", "10"])
    for step in range(1, 11):
        assert lr_at(config.optimizer, step, 20) == lr_at(source.optimizer, step, 10)
    if decay[1] in ("constant", "inverse-square-root"):
        assert lr_at(config.optimizer, 20, 20) == (0.5 if decay[1] == "constant" else 0.5 * (2 / 20) ** 0.5)
        assert not [*ends_of_decay(config, SOURCE_STEPS)]
    else:
        end = source.optimizer.lr_decay_iters or 10
        assert {lr_at(config.optimizer, step, 20) for step in range(end, 21)} == {config.optimizer.min_lr}
        (line,) = ends_of_decay(config, SOURCE_STEPS)
        assert f"ends at step {end} of 20" in line and "--lr-decay-iters 20" in line and "--schedule rewarm" in line


@pytest.mark.parametrize(
    ("flags", "end"),
    [
        (["--lr-decay-iters", "20"], 20),
        (["--lr-decay-style", "linear"], None),
        (["--schedule", "rewarm"], None),
        (["--train-iters", "4"], 10),
    ],
)
def test_a_run_whose_rate_does_not_stay_at_its_minimum_says_nothing(
    make_run: Callable[..., Path], flags: list[str], end: int | None
) -> None:
    run = make_run("causal_decoder", "full_lm", "--train-iters", "10")
    config = adapted(run, "prefix_decoder", "--train-iters", "20", *flags)
    assert config.optimizer.lr_decay_iters == end and not [*ends_of_decay(config, SOURCE_STEPS)]


def test_a_conversion_need_not_reach_the_end_of_the_warm_up(make_run: Callable[..., Path]) -> None:
    flags = ("--lr-decay-style", "inverse-square-root", "--lr-warmup-iters", "500")
    run = make_run("causal_decoder", "full_lm", *flags)
    assert adapted(run, "prefix_decoder", "--train-iters", str(SOURCE_STEPS)).optimizer.lr_warmup_iters == 500
    with pytest.raises(UserError, match="--lr-warmup-iters 500 does not end before --train-iters 5"):
        adapted(run, "prefix_decoder", "--train-iters", str(SOURCE_STEPS + 1))


def test_a_run_that_has_begun_needs_its_source_no_more(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run, own = make_run("causal_decoder", "full_lm", "--lr", "0.5", "--train-iters", "10"), tmp_path / "own"
    words = ["--save", str(own), "--to", "prefix_decoder", "--optimizer", "adafactor", "--optimizer-state", "fresh"]
    begun = parse_adapt(["--load", str(run), *words])[0]
    checkpoint_of(begun, own)
    shutil.rmtree(run)
    assert parse_adapt(["--load", str(run), *words])[0] == begun
    without_load = parse_adapt(words)[0]
    assert dataclasses.replace(without_load, checkpoint=begun.checkpoint) == begun
    shutil.rmtree(own)
    with pytest.raises(UserError, match=r"--load .* holds no complete checkpoint"):
        parse_adapt(["--load", str(run), *words])
    with pytest.raises(UserError, match="--load is missing"):
        parse_adapt(words)


def test_a_schedule_of_its_own_begins_once(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run, own = make_run("causal_decoder", "full_lm", "--lr", "0.5"), tmp_path / "own"
    words = ["--load", str(run), "--save", str(own), "--to", "prefix_decoder", "--schedule", "rewarm"]
    begun = parse_adapt([*words, "--lr", "0.02", "--lr-decay-style", "linear"])[0]
    checkpoint_of(begun, own)
    assert parse_adapt(words)[0] == begun


@pytest.mark.parametrize(
    ("before", "flags"),
    [
        (["--min-lr", "1e-5"], ["--lr-decay-style", "constant"]),
        (["--bf16"], ["--fp16"]),
        (["--reset-attention-mask"], ["--pack-documents"]),
        (["--eod-mask-loss"], ["--objective", "span_corruption"]),
        (["--split", "9,1"], ["--train-data-path", "CORPUS", "--valid-data-path", "CORPUS"]),
        (["--begin-with-start-token"], ["--to", "encoder_decoder", "--objective", "prefix_lm"]),
    ],
)
def test_what_belonged_to_a_replaced_setting_goes_with_it(
    make_run: Callable[..., Path], inputs: Path, before: list[str], flags: list[str]
) -> None:
    run = make_run("causal_decoder", "full_lm", *before)
    words = [word.replace("CORPUS", str(inputs / "corpus")) for word in flags]
    to = [] if "--to" in words else ["--to", "prefix_decoder"]
    config, _ = parse_adapt(["--load", str(run), *to, *words])
    for flag in before[::2]:
        name = flag.removeprefix("--").replace("-", "_")
        section = next(part for part in vars(config).values() if isinstance(part, Options) and hasattr(part, name))
        assert getattr(section, name) == getattr(type(section)(), name)


def test_a_learned_table_keeps_its_rows(make_run: Callable[..., Path]) -> None:
    run = make_run("causal_decoder", "full_lm", "--seq-length", "64")
    assert adapted(run, "prefix_decoder", "--seq-length", "32").model.max_position_embeddings == 64
    with pytest.raises(UserError, match="--max-position-embeddings 64 is less than --seq-length 128"):
        adapted(run, "prefix_decoder", "--seq-length", "128")


@pytest.mark.parametrize("kind", ["relative", "rope", "alibi"])
def test_positions_without_weights_do_not_bind(make_run: Callable[..., Path], kind: str) -> None:
    positions = ("--position-embedding-type", kind, "--max-position-embeddings", "512", "--seq-length", "512")
    run = make_run("causal_decoder", "full_lm", *positions)
    longer = adapted(run, "prefix_decoder", "--seq-length", "640")
    assert (longer.data.seq_length, longer.model.max_position_embeddings) == (640, 640)
    assert adapted(run, "prefix_decoder").model.max_position_embeddings == 512


def test_an_encoder_decoder_gives_a_decoder_its_depth(make_run: Callable[..., Path]) -> None:
    flags = ("--encoder-num-layers", "3", "--decoder-num-layers", "5", "--decoder-seq-length", "512")
    run = make_run("encoder_decoder", "span_corruption", *flags)
    assert adapted(run, "causal_decoder").model.num_layers == 5
    assert adapted(run, "causal_decoder", "--from-stack", "encoder").model.num_layers == 3


def test_an_illegal_objective_is_answered_with_the_legal_ones(make_run: Callable[..., Path]) -> None:
    run = make_run("causal_decoder", "full_lm")
    with pytest.raises(UserError, match=r"--objective full_lm is not one of encoder_decoder; it takes: .*prefix_lm"):
        adapted(run, "encoder_decoder")


def test_a_folder_without_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--load .* holds no complete checkpoint"):
        adapted(tmp_path, "prefix_decoder")


def test_lineage_as_people_write_it() -> None:
    stages = [
        {"architecture": "causal_decoder", "objective": "full_lm", "tokens": 168_000_000_000},
        {"architecture": "encoder_decoder", "objective": "span_corruption", "tokens": 0},
        {"architecture": "prefix_decoder", "objective": "span_corruption", "tokens": 51_240_000_000},
        {"architecture": "prefix_decoder", "objective": "full_lm", "tokens": 512},
    ]
    expected = "causal_decoder:full_lm 168B + prefix_decoder:span_corruption 51.2B + prefix_decoder:full_lm 512"
    assert lineage_line(stages) == expected
