"""Every launcher in examples/ itself starts what its header says: run with stand-ins for torchrun and SLURM."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from megatron.architectures.legal_pairs import legal_objectives
from megatron.architectures.weights import count_parameters
from megatron.cli.figures import training_size
from megatron.cli.run_config import RunConfig, parse_pretrain
from megatron.loop.memory_estimate import estimate_memory

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
LAUNCHERS = sorted([*EXAMPLES.glob("*.sh"), *EXAMPLES.glob("*.sbatch")])
HEADER = ("What", "Hardware", "Memory", "Time")
# Each word on a line of its own, so that a word with spaces stays one.
STAND_INS = {
    "torchrun": '#!/bin/sh\nprintf "%s\\n" "$@" > "$TORCHRUN_WORDS"\n',
    "srun": '#!/bin/sh\nexec "$@"\n',
    "scontrol": "#!/bin/sh\necho node1\necho node2\n",
}
ONE_VALUE_FLAGS = {"--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id"}


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A function from a launcher to (number of processes, arguments of the training script, script)."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, text in STAND_INS.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    data = tmp_path / "a corpus"  # with a space: launchers quote
    for suffix in (".bin", ".idx"):
        data.with_suffix(suffix).touch()
    tokenizer = tmp_path / "t.model"
    tokenizer.touch()
    environment = {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "DATA": str(data),
        "TOKENIZER": str(tokenizer),
        "SAVE": str(tmp_path / "run"),
        "HEAD_NODE": "node1:29500",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_ID": "17",
        "TORCHRUN_WORDS": str(tmp_path / "words"),
    }

    def start(launcher: Path, *more: str) -> tuple[int, list[str], Path]:
        done = subprocess.run(
            [launcher, *more], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return split_torchrun((tmp_path / "words").read_text().splitlines())

    start.environment = environment
    return start


def split_torchrun(words: list[str]) -> tuple[int, list[str], Path]:
    """Processes, arguments of the script, and the script, of a torchrun command."""
    sizes = {"--nnodes": "1", "--nproc-per-node": "1"}
    position = 0
    while words[position].startswith("--"):
        if words[position] in ONE_VALUE_FLAGS:
            sizes[words[position]] = words[position + 1]
            position += 1
        else:
            assert words[position] == "--standalone"
        position += 1
    return int(sizes["--nnodes"]) * int(sizes["--nproc-per-node"]), words[position + 1 :], Path(words[position])


def header_of(launcher: Path) -> dict[str, str]:
    found = re.findall(r"^# (\w+): +(.+)$", launcher.read_text(), re.MULTILINE)
    return {name: text for name, text in found if name in HEADER}


def config_of(arguments: list[str], processes: int, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    return parse_pretrain(
        arguments,
        architecture="causal_decoder",
        default_objective="full_lm",
        legal_objectives=legal_objectives("causal_decoder"),
    )


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=lambda path: path.name)
def test_launcher_starts_a_legal_run_of_the_size_it_names(launcher, started, monkeypatch):
    assert os.access(launcher, os.X_OK)
    header = header_of(launcher)
    assert tuple(header) == HEADER
    processes, arguments, script = started(launcher)
    assert script.resolve() == ROOT / "pretrain_gpt.py"
    config = config_of(arguments, processes, monkeypatch)

    memory = re.fullmatch(r"about ([\d.]+) GB per (?:GPU|process) \(vocabulary of ([\d,]+)\)", header["Memory"])
    assert memory, header["Memory"]
    vocabulary_size = int(memory[2].replace(",", ""))
    size = training_size(config, vocabulary_size, processes)
    expected = estimate_memory(size).total / 1e9
    assert float(memory[1]) == pytest.approx(expected, rel=0.03), f"write about {expected:.2g} GB"

    named = re.search(r"of ([\d.]+)([MB]) parameters", header["What"])
    parameters = count_parameters(size.shape)
    assert parameters.total == pytest.approx(float(named[1]) * {"M": 1e6, "B": 1e9}[named[2]], rel=0.1)


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=lambda path: path.name)
def test_launcher_hands_on_further_flags_and_asks_for_data(launcher, started, monkeypatch):
    processes, arguments, _ = started(launcher, "--train-iters", "20000000")
    assert config_of(arguments, processes, monkeypatch).batch.train_iters == 20_000_000
    del started.environment["DATA"]
    done = subprocess.run([launcher], env=started.environment, capture_output=True, text=True, timeout=30)
    assert done.returncode and "set DATA to a token file" in done.stderr


def test_the_table_of_examples_lists_every_launcher_as_its_header_does():
    rows = re.findall(r"^\| \[`(.+?)`\]\(.+?\) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", table(), re.MULTILINE)
    expected = [(path.name, *header_of(path).values()) for path in LAUNCHERS]
    assert sorted(rows) == sorted(expected)


def table() -> str:
    return (EXAMPLES / "README.md").read_text().split("## Running one")[0]
