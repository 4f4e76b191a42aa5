"""SIGTERM, SIGUSR1 and SIGINT: save after the step that runs, end with 75, go on later as if nothing had happened."""

import json
import os
import signal
import sys
import time

import pytest
from faults import Fault
from run_folder import iterations_of, leftovers_of, metrics_of, tensors_of
from test_kill import ranks_of, start

STEPS = 6
VALIDATION = {"eval_interval": 3, "eval_iters": 2, "split": "8,2,0"}
# (function, its call, the step that is saved: the one that runs, or the one that follows)
MOMENTS = {
    "load": ("megatron.cli.training:start_from", 1, 1),
    "index": ("megatron.cli.training:build_loaders", 1, 1),  # before the handlers' first step
    "first step": ("megatron.loop.loop:train_step", 1, 1),
    "step": ("megatron.loop.step:run_schedule", 2, 2),
    "evaluation": ("megatron.loop.loop:validate", 1, 4),
    "save": ("megatron.checkpoint.save:write_shard", 1, 3),
}


@pytest.fixture(scope="module")
def undisturbed(trainer, tiny_corpus, tmp_path_factory):
    runs = {}
    for tensor_size in (1, 2):
        runs[tensor_size] = tmp_path_factory.mktemp("undisturbed") / "run"
        flags = tiny_corpus.flags(
            train_iters=STEPS, save=runs[tensor_size], tensor_model_parallel_size=tensor_size, **VALIDATION
        )
        trainer.finish(flags, ranks=tensor_size)
    return runs


def stop_and_go_on(trainer, flags, run, plain, ranks, faults):
    """The signals come, all ranks save the same step and end with 75; the next start ends like the undisturbed run."""
    ended = trainer.run(flags, ranks=ranks, faults=faults)
    assert ended.codes == [75] * ranks, ended.output
    assert "stopping after iteration" in ended.output and "Traceback" not in ended.output
    stopped_at = iterations_of(run)[-1]
    assert stopped_at == metrics_of(run)[-1]["iteration"] < STEPS
    assert "validation-time" not in json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert leftovers_of(run) == []
    trainer.finish(flags, ranks=ranks)
    assert tensors_of(run, STEPS) == tensors_of(plain, STEPS)
    assert metrics_of(run) == metrics_of(plain)
    return stopped_at


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        *(("SIGTERM", moment) for moment in MOMENTS),
        *(pytest.param("SIGUSR1", moment, marks=pytest.mark.slow) for moment in ("save", "step")),
        ("SIGINT", "evaluation"),
    ],
)
def test_saves_and_goes_on(number, moment, undisturbed, trainer, tiny_corpus, tmp_path):
    run = tmp_path / "run"
    at, call, saved = MOMENTS[moment]
    way = {"async_save": number == "SIGUSR1"}
    flags = tiny_corpus.flags(train_iters=STEPS, save=run, save_interval=2, **VALIDATION, **way)
    faults = [Fault(at=at, call=call, do=number)]
    assert stop_and_go_on(trainer, flags, run, undisturbed[1], 1, faults) == saved


@pytest.mark.parametrize("told", [(0,), (1,), (0, 1)], ids=["the first", "the second", "both"])
def test_one_rank_or_all(told, undisturbed, trainer, tiny_corpus, tmp_path):
    run = tmp_path / "run"
    flags = tiny_corpus.flags(train_iters=STEPS, save=run, tensor_model_parallel_size=2, **VALIDATION)
    faults = [Fault(at="megatron.loop.loop:train_step", call=2, do="SIGTERM", rank=rank) for rank in told]
    assert stop_and_go_on(trainer, flags, run, undisturbed[2], 2, faults) == 2


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", -signal.SIGTERM)])
def test_before_there_is_anything_to_save(number, code, trainer, tiny_corpus, tmp_path):
    fault = Fault(at="megatron.tokenization.tokenizer:load_tokenizer", call=1, do=number)
    ended = trainer.run(tiny_corpus.flags(train_iters=2, save=tmp_path / "run"), faults=[fault])
    assert ended.code == code and "Traceback" not in ended.output
    assert list(tmp_path.iterdir()) == []


def test_the_launcher_is_told(tiny_corpus, entry_script, tmp_path):
    """As a cluster does it: torchrun gets SIGTERM and passes it on; both ranks save the same step and end."""
    run = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    flags = tiny_corpus.flags(train_iters=5000, save=run, tensor_model_parallel_size=2)
    process = start([*launcher, entry_script, *flags])
    while process.poll() is None and not (run / "metrics.jsonl").exists():
        time.sleep(0.01)
    ranks = ranks_of(process.pid)
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0 and "stopping after iteration" in output, output[-3000:]
    assert iterations_of(run) == [metrics_of(run)[-1]["iteration"]]
    assert len(ranks) == 2 and not any(os.path.exists(f"/proc/{rank}") for rank in ranks)
