"""What adapt.py makes of a command line and the record of a run; no tensor is read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from megatron.adaptation.options import AdaptationOptions
from megatron.basics.errors import UserError
from megatron.basics.option import Options
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.manifest import Manifest
from megatron.cli.adapt import parse_adapt
from megatron.cli.run_config import RunConfig, parse_pretrain
from megatron.cli.run_record import lineage_line

Parsed = tuple[RunConfig, AdaptationOptions]


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
        contents = Contents(progress=Progress(), run=config.as_dict(), tokenizer={}, lineage=[], optimizer={})
        folder = tmp_path / "source" / "iter_0000004"
        folder.mkdir(parents=True)
        Manifest(tensors={}, files={}, contents=contents).write(folder)
        return folder.parent

    return make_run


def adapted(run: Path, to: str, *flags: str) -> Parsed:
    return parse_adapt(["--load", str(run), "--to", to, *flags])


def test_model_data_and_optimizer_are_those_of_the_source(make_run: Callable[..., Path], inputs: Path) -> None:
    run = make_run("causal_decoder", "full_lm", "--hidden-size", "96", "--lr", "0.5", "--split", "9,1", "--seed", "7")
    config, options = adapted(run, "prefix_decoder", "--objective", "prefix_lm")
    assert (config.architecture, config.objective, options.to) == ("prefix_decoder", "prefix_lm", "prefix_decoder")
    assert (config.model.hidden_size, config.optimizer.lr, config.data.split) == (96, 0.5, "9,1")
    assert config.data.data_path == [str(inputs / "corpus")]
    assert config.batch.seed == 1234  # data order and dropout of a run are its own


def test_a_schedule_of_its_own_begins_with_the_defaults(make_run: Callable[..., Path]) -> None:
    run = make_run("causal_decoder", "full_lm", "--lr", "0.5")
    assert adapted(run, "prefix_decoder", "--schedule", "rewarm")[0].optimizer.lr == 3e-4


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
    assert adapted(run, "prefix_decoder", "--seq-length", "32")[0].model.max_position_embeddings == 64
    with pytest.raises(UserError, match="--max-position-embeddings 64 is less than --seq-length 128"):
        adapted(run, "prefix_decoder", "--seq-length", "128")


def test_an_encoder_decoder_gives_a_decoder_its_depth(make_run: Callable[..., Path]) -> None:
    flags = ("--encoder-num-layers", "3", "--decoder-num-layers", "5", "--decoder-seq-length", "512")
    run = make_run("encoder_decoder", "span_corruption", *flags)
    assert adapted(run, "causal_decoder")[0].model.num_layers == 5
    assert adapted(run, "causal_decoder", "--from-stack", "encoder")[0].model.num_layers == 3


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
