"""SIGKILL at random moments: the run ends with the undisturbed run's weights and losses, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch import ROOT, environment_for
from run_folder import iterations_of, leftovers_of, losses_of, tensors_of

SECONDS_TO_KILL = 0.3  # within which a rank dies after its first new step


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment_for(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(command: list[str]) -> None:
    process = start(command)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-4000:]


def ranks_of(launcher: int) -> list[int]:
    """Process ids of the ranks that a torchrun process started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended meanwhile
            continue
        if parent == launcher:
            found.append(int(stat.parent.name))
    return found


def kill_soon(command: list[str], run: Path, rng: random.Random) -> bool:
    """Kill a random rank some time after its first new step; whether the job had ended by itself before.

    A job of one process is its only rank; under torchrun the launcher must end the others.
    """
    size = (run / "metrics.jsonl").stat().st_size if (run / "metrics.jsonl").exists() else 0
    process = start(command)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        metrics = run / "metrics.jsonl"
        if metrics.exists() and metrics.stat().st_size > size:
            break
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, SECONDS_TO_KILL))
    ended = process.poll() is not None
    if not ended:
        os.kill(rng.choice(ranks_of(process.pid) or [process.pid]), signal.SIGKILL)
    process.communicate(timeout=60)
    return ended


def survive(rounds: int, command: list[str], plain: Path, run: Path, steps: int) -> None:
    rng = random.Random(rounds)
    for round_ in range(rounds):
        ended = kill_soon([*command, "--save", str(run)], run, rng)
        assert not ended, f"the run ended after {round_} of {rounds} kills; give it more steps"
    finish([*command, "--save", str(run)])
    assert tensors_of(run, steps) == tensors_of(plain, steps)
    assert losses_of(run) == losses_of(plain)
    assert iterations_of(run)[-1] == steps
    assert leftovers_of(run) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rounds", "steps", "save_interval"),
    [(4, 100, 1), pytest.param(100, 2000, 5, marks=pytest.mark.timeout(3600))],
)
def test_killed_again_and_again(rounds, steps, save_interval, tiny_corpus, entry_script, tmp_path):
    flags = tiny_corpus.flags(train_iters=steps, save_interval=save_interval, keep_last=3, num_workers=1)
    command = [sys.executable, entry_script, *flags]
    plain = tmp_path / "plain"
    finish([*command, "--save", str(plain)])
    survive(rounds, command, plain, tmp_path / "killed", steps)


def test_two_ranks_killed(tiny_corpus, entry_script, tmp_path):
    flags = tiny_corpus.flags(train_iters=40, save_interval=2, tensor_model_parallel_size=2, async_save=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, entry_script, *flags]
    plain = tmp_path / "plain"
    finish([*command, "--save", str(plain)])
    survive(2, command, plain, tmp_path / "killed", 40)
