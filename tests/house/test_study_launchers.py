"""The launchers of the study start its runs: sizes, budgets and lengths of Wang et al. 2022 and its code."""

import re
import subprocess

import numpy as np
import pytest

from megatron.architectures.legal_pairs import legal_objectives
from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.architectures.weights import count_parameters
from megatron.basics.draws import Draws
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.manifest import Manifest
from megatron.cli.adapt import parse_adapt
from megatron.cli.figures import training_size
from megatron.cli.run_config import parse_pretrain
from megatron.loop.memory_estimate import estimate_memory
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
# launcher: (the cell whose run goes on, architecture, objective, last step at the paper's size and at a laptop's)
ADAPTATIONS = {
    "lm_a": ("nd_mlm", "causal_decoder", "full_lm", 169_984, 800),
    "nc_a": ("cd_flm", "prefix_decoder", "span_corruption", 171_008, 800),
}
VOCABULARY = 32_100  # and 28 rows of padding
LAPTOP_VOCABULARY = 4_096
README = (EXAMPLES / "README.md").read_text().split("## The study")[1]
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


def adapted_config_of(launcher, started, monkeypatch, folder, **environment):  # noqa: F811
    """What adapt.py makes of a launcher's words and of the record of the cell that it goes on from."""
    source, *_ = ADAPTATIONS[launcher]
    before, _ = config_of(source, started, monkeypatch, **environment)
    checkpoint = folder / source / "iter_0000600"
    checkpoint.mkdir(parents=True)
    contents = Contents(progress=Progress(), run=before.as_dict(), tokenizer={}, lineage=[], optimizer={})
    Manifest(tensors={}, files={}, contents=contents).write(checkpoint)
    started.environment["LOAD"] = str(checkpoint.parent)
    processes, arguments, script = started(STUDY / f"{launcher}.sh")
    assert script.resolve() == ROOT / "adapt.py"
    config, options = parse_adapt(arguments)
    return before, config, options, processes


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw"])
@pytest.mark.parametrize("size", ["laptop", "paper"])
@pytest.mark.parametrize("launcher", ADAPTATIONS)
def test_adaptations_go_on_as_their_cell_began(launcher, size, optimizer, started, monkeypatch, tmp_path):  # noqa: F811
    environment = {"SIZE": size, "OPTIMIZER": optimizer}
    before, config, options, _ = adapted_config_of(launcher, started, monkeypatch, tmp_path / "cells", **environment)
    _, target, objective, paper, laptop = ADAPTATIONS[launcher]
    assert (config.architecture, config.objective) == (target, objective)
    assert config.batch.train_iters == {"paper": paper, "laptop": laptop}[size]
    assert (options.schedule, options.optimizer_state) == ("continue", "keep")
    assert config.optimizer == before.optimizer and config.optimizer.lr_decay_iters is None  # the rate goes on
    assert config.data.seq_length == before.data.seq_length
    assert config.batch.global_batch_size == before.batch.global_batch_size
    sections = ("num_layers", "hidden_size", "num_attention_heads", "ffn_hidden_size", "position_embedding_type")
    assert all(getattr(config.model, name) == getattr(before.model, name) for name in sections)


@pytest.mark.parametrize("launcher", ADAPTATIONS)
def test_adaptations_load_the_run_of_a_cell(launcher, started):  # noqa: F811
    """The steps at which the study evaluated: 49.9 and 51.2 billion tokens behind the 131,072 of pretraining."""
    started.environment["SIZE"] = "paper"
    _, arguments, _ = started(STUDY / f"{launcher}.sh")
    source = ADAPTATIONS[launcher][0]
    assert arguments[arguments.index("--load") + 1] == f"runs/study-paper/{source}"
    assert (STUDY / f"{source}.sh").is_file()


@pytest.mark.parametrize(("size", "vocabulary"), [("laptop", LAPTOP_VOCABULARY), ("paper", VOCABULARY)])
@pytest.mark.parametrize("launcher", [*CELLS, *ADAPTATIONS])
def test_the_table_says_what_a_launcher_takes(launcher, size, vocabulary, started, monkeypatch, tmp_path):  # noqa: F811
    if launcher in CELLS:
        config, processes = config_of(launcher, started, monkeypatch, SIZE=size)
    else:
        _, config, _, processes = adapted_config_of(launcher, started, monkeypatch, tmp_path / "cells", SIZE=size)
    expected = estimate_memory(training_size(config, vocabulary, processes)).total / 1e9
    row = re.search(rf"^\| \[`{launcher}\.sh`\].* \| (\d+) MB \| (\d+) GB \|$", README, re.MULTILINE)
    written = float(row[1]) / 1e3 if size == "laptop" else float(row[2])
    assert written == pytest.approx(expected, rel=0.03), f"write {expected:.3g} GB"
    hardware = {"laptop": "two processes on 2 CPU cores", "paper": "8 nodes of 8 NVIDIA GPUs"}[size]
    assert processes == {"laptop": 2, "paper": 64}[size] and hardware in README
    assert f"vocabulary of {vocabulary:,}" in README


@pytest.mark.parametrize("cell", CELLS)
def test_the_size_of_a_laptop(cell, started, monkeypatch):  # noqa: F811
    config, processes = config_of(cell, started, monkeypatch, SIZE="laptop")
    small, large = re.search(r"([\d.]+) or ([\d.]+)\s+million parameters", README).groups()
    named = float(large if config.architecture == "encoder_decoder" else small)
    total = count_parameters(training_size(config, LAPTOP_VOCABULARY, processes).shape).total
    assert total == pytest.approx(named * 1e6, rel=0.02)


def test_the_table_lists_every_launcher_of_the_study():
    listed = re.findall(r"^\| \[`(\w+)\.sh`\]\(study/\1\.sh\)", README, re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in STUDY.glob("*.sh") if path.stem != "cell")
