"""SIGTERM, SIGUSR1 and SIGINT: save after the step, end with 75, and go on later as if nothing had happened."""

import os
import signal
import sys
import time

import pytest
from run_folder import iterations_of, leftovers_of, losses_of, tensors_of
from test_kill import finish, ranks_of, start

STEPS = 60


@pytest.fixture(scope="module")
def undisturbed(tiny_corpus, entry_script, tmp_path_factory):
    run = tmp_path_factory.mktemp("plain")
    finish([sys.executable, entry_script, *tiny_corpus.flags(train_iters=STEPS, save=run)])
    return run


def send(command, run, number):
    """Start, send one signal after the first step, and wait: the job and what it printed."""
    process = start(command)
    while process.poll() is None and not (run / "metrics.jsonl").exists():
        time.sleep(0.01)
    os.kill((ranks_of(process.pid) or [process.pid])[-1], number)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_saves_and_goes_on(number, undisturbed, tiny_corpus, entry_script, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, entry_script, *tiny_corpus.flags(train_iters=STEPS, save=run)]
    code, output = send(command, run, number)
    assert code == 75, output[-3000:]
    assert number.name in output
    (stopped_at,) = iterations_of(run)
    assert stopped_at == max(losses_of(run)) < STEPS
    finish(command)
    assert tensors_of(run, STEPS) == tensors_of(undisturbed, STEPS)
    assert losses_of(run) == losses_of(undisturbed)
    assert leftovers_of(run) == []


def test_a_signal_to_one_rank_stops_all(undisturbed, tiny_corpus, entry_script, tmp_path):
    run = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, entry_script, *tiny_corpus.flags(train_iters=2000, save=run)]
    code, output = send(command, run, signal.SIGUSR1)
    assert code == 1 and "exitcode  : 75" in output, output[-3000:]  # torchrun's own code for a rank that stopped
    (stopped_at,) = iterations_of(run)
    assert stopped_at == max(losses_of(run))
