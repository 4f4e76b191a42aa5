"""The launchers of the study start its runs: sizes, budgets and lengths of Wang et al. 2022 and its code."""

import subprocess

import numpy as np
import pytest

from megatron.architectures.legal_pairs import legal_objectives
from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.architectures.weights import count_parameters
from megatron.basics.draws import Draws
from megatron.cli.figures import training_size
from megatron.cli.run_config import parse_pretrain
from megatron.loop.schedule import lr_at
from megatron.objectives.registry import OBJECTIVES
from megatron.records.special_tokens import SpecialTokens
from megatron.records.window import Window
from tests.house.test_launchers import EXAMPLES, ROOT, started  # noqa: F401 - a fixture

STUDY = EXAMPLES / "study"
# launcher: (script, architecture, objective, tokens of the rows, rows of a step)
CELLS = {
    "cd_flm": ("pretrain_gpt.py", "causal_decoder", "full_lm", (626, 626), 2048),
    "nd_plm": ("pretrain_prefix_lm.py", "prefix_decoder", "prefix_lm", (626, 626), 2048),
    "ed_plm": ("pretrain_t5.py", "encoder_decoder", "prefix_lm", (626, 626), 1024),
    "cd_mlm": ("pretrain_gpt.py", "causal_decoder", "span_corruption", (626, 626), 2048),
    "nd_mlm": ("pretrain_prefix_lm.py", "prefix_decoder", "span_corruption", (626, 626), 2048),
    "ed_mlm": ("pretrain_t5.py", "encoder_decoder", "span_corruption", (512, 114), 2048),
}
VOCABULARY = 32_100  # and 28 rows of padding
PARAMETERS = {"causal_decoder": 4_762_357_760, "prefix_decoder": 4_762_357_760, "encoder_decoder": 11_003_736_064}


def config_of(cell, started, monkeypatch, *more, **environment):  # noqa: F811
    script, architecture, objective, *_ = CELLS[cell]
    started.environment.update(environment)
    processes, arguments, path = started(STUDY / f"{cell}.sh", *more)
    assert path.resolve() == ROOT / script
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    legal = legal_objectives(architecture)
    config = parse_pretrain(arguments, architecture=architecture, default_objective=legal[0], legal_objectives=legal)
    assert config.objective == objective
    return config, processes


def test_there_is_a_launcher_for_every_cell_of_the_study():
    assert {path.stem for path in STUDY.glob("??_?lm.sh")} == set(CELLS)


@pytest.mark.parametrize("cell", CELLS)
def test_the_size_of_the_paper(cell, started, monkeypatch):  # noqa: F811
    config, processes = config_of(cell, started, monkeypatch, SIZE="paper")
    *_, lengths, rows = CELLS[cell]
    assert processes == 64
    assert (config.data.seq_length, config.data.decoder_seq_length or config.data.seq_length) == lengths
    assert config.batch.global_batch_size == rows
    size = training_size(config, VOCABULARY, processes)
    assert count_parameters(size.shape).total == PARAMETERS[config.architecture]
    tokens_per_step = rows * (sum(lengths) if config.architecture == "encoder_decoder" else lengths[0])
    assert tokens_per_step == 2048 * 626
    assert config.batch.train_iters * tokens_per_step == pytest.approx(168.04e9, rel=1e-4)
    rates = [lr_at(config.optimizer, step, config.batch.train_iters) for step in (1, 10_000, 40_000, 131_072)]
    assert rates == pytest.approx([0.01, 0.01, 0.005, 131_072**-0.5])


@pytest.mark.parametrize("size", ["laptop", "paper"])
@pytest.mark.parametrize("cell", CELLS)
def test_windows_fill_the_rows(cell, size, started, monkeypatch):  # noqa: F811
    config, _ = config_of(cell, started, monkeypatch, SIZE=size)
    lengths = (config.data.seq_length, config.data.decoder_seq_length or config.data.seq_length)
    begins_with_start_token = config.data.begin_with_start_token
    assert begins_with_start_token == (config.architecture != "encoder_decoder")
    rules = RowRules(
        seq_length=lengths[0],
        decoder_seq_length=lengths[1],
        end_token=1,
        begins_with_start_token=begins_with_start_token,
    )
    architecture = ARCHITECTURES[config.architecture]()
    special = SpecialTokens(end=1, sentinels=tuple(range(100)))
    objective = OBJECTIVES[config.objective].build(config.objective_options, special, architecture.room(rules))
    window = Window(np.full(objective.window_length, 7, np.int32), np.zeros(0, np.int32))
    row = architecture.arrange(objective(window, Draws(1)), rules)
    assert row.intervals[-1, 1] > row.intervals[-1, 0]  # the last position is no padding
    if row.encoder is not None:
        assert row.encoder.intervals[-1, 1] > row.encoder.intervals[-1, 0]


@pytest.mark.parametrize("size", ["laptop", "paper"])
@pytest.mark.parametrize("cell", CELLS)
def test_adamw_instead_of_adafactor(cell, size, started, monkeypatch):  # noqa: F811
    config, _ = config_of(cell, started, monkeypatch, "--train-iters", "7777", SIZE=size, OPTIMIZER="adamw")
    assert config.optimizer.optimizer == "adam" and config.batch.train_iters == 7777
    assert config.optimizer.lr < 0.01 and config.optimizer.lr_warmup_iters > 0


def test_an_unknown_size_is_answered(started, monkeypatch):  # noqa: F811
    environment = {**started.environment, "SIZE": "huge"}
    done = subprocess.run([STUDY / "cd_flm.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr == "SIZE=huge is not known; set it to laptop or paper.\n"


@pytest.mark.parametrize(
    ("launcher", "source", "target", "objective", "last_step"),
    [
        ("lm_a", "nd_mlm", "causal_decoder", "full_lm", 169_984),
        ("nc_a", "cd_flm", "prefix_decoder", "span_corruption", 171_008),
    ],
)
def test_adaptations_go_on_from_a_cell_to_the_studys_last_step(launcher, source, target, objective, last_step, started):  # noqa: F811
    """The steps at which the study evaluated: 49.9 and 51.2 billion tokens behind the 131,072 of pretraining."""
    started.environment["SIZE"] = "paper"
    _, arguments, script = started(STUDY / f"{launcher}.sh")
    assert script.resolve() == ROOT / "adapt.py"
    wanted = {
        "--load": f"runs/study-paper/{source}",
        "--to": target,
        "--objective": objective,
        "--train-iters": str(last_step),
        "--seq-length": "626",
        "--schedule": "continue",
        "--optimizer-state": "keep",
    }
    assert {flag: arguments[arguments.index(flag) + 1] for flag in wanted} == wanted
    assert (STUDY / f"{source}.sh").is_file()
