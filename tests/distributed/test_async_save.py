"""A save beside training holds what a save at once holds, and what goes wrong in the background is told."""

import shutil
from pathlib import Path

import pytest
from faults import Fault
from run_folder import iterations_of, leftovers_of, losses_of, tensors_of

STEPS = 6


@pytest.fixture(scope="module")
def undisturbed(trainer, tiny_corpus, tmp_path_factory):
    run = tmp_path_factory.mktemp("at_once") / "run"
    trainer.finish(tiny_corpus.flags(train_iters=STEPS, save=run, save_interval=2))
    return run


@pytest.mark.parametrize("faults", [[], [Fault(at="megatron.checkpoint.save:write_shard", call=1, do="sleep")]])
def test_equals_a_save_at_once(faults, undisturbed, trainer, tiny_corpus, tmp_path):
    """Also when the disk is so slow that the weights have long changed when the first byte is written."""
    run = tmp_path / "run"
    flags = tiny_corpus.flags(train_iters=STEPS, save=run, save_interval=2, async_save=True)
    ended = trainer.finish(flags, faults=faults)
    assert ended.output.index("iter_0000002") < ended.output.index("iter_0000004")
    for iteration in (2, 4, 6):
        assert tensors_of(run, iteration) == tensors_of(undisturbed, iteration)
    assert losses_of(run) == losses_of(undisturbed) and leftovers_of(run) == []


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("way", [{}, {"async_save": True}], ids=["at once", "beside"])
def test_a_disk_that_is_full_for_a_while(way, ranks, trainer, tiny_corpus, tmp_path):
    run = tmp_path / "run"
    flags = tiny_corpus.flags(train_iters=STEPS, save=run, save_interval=2, tensor_model_parallel_size=ranks, **way)
    fault = Fault(at="megatron.checkpoint.shards:save_file", call=1, do="ENOSPC", rank=ranks - 1)
    ended = trainer.finish(flags, ranks=ranks, faults=[fault])
    (warning,) = [line for line in ended.output.splitlines() if line.startswith("warning")]
    assert "iteration 2 was not saved" in warning and "the disk is full" in warning
    assert iterations_of(run) == [4, 6] and leftovers_of(run) == []


def test_strict_save_stops(trainer, tiny_corpus, tmp_path):
    run = tmp_path / "run"
    flags = tiny_corpus.flags(train_iters=STEPS, save=run, save_interval=2, async_save=True, strict_save=True)
    fault = Fault(at="megatron.checkpoint.shards:save_file", call=2, do="ENOSPC")
    ended = trainer.run(flags, faults=[fault])
    assert ended.code == 2 and "Traceback" not in ended.output
    assert "iteration 4 was not saved" in ended.errors[0] and "the disk is full" in ended.errors[0]
    assert iterations_of(run) == [2] and leftovers_of(run) == []


def test_a_run_that_gives_up_finishes_the_save_on_its_way(trainer, tiny_corpus, tmp_path):
    run = tmp_path / "run"
    flags = tiny_corpus.flags(train_iters=STEPS, save=run, save_interval=2, async_save=True, max_nonfinite_steps=1)
    slow = Fault(at="megatron.checkpoint.save:write_shard", call=1, do="sleep")
    ended = trainer.run(flags, faults=[slow, Fault(at="gradient", call=3)])
    assert ended.code == 1 and iterations_of(run) == [2] and leftovers_of(run) == []


STEPS_ON_DISK = range(1, 45)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["ENOSPC", "EIO"])
def test_every_step_on_disk_may_fail(kind, undisturbed, trainer, tiny_corpus, tmp_path):
    """Whatever fails, nothing half-written is left, and a start that meets no fault ends like the undisturbed run."""
    for step in STEPS_ON_DISK:
        run = tmp_path / f"run{step}"
        assert_survives(Fault(at="disk", call=step, do=kind, folder=str(run)), run, undisturbed, trainer, tiny_corpus)
        shutil.rmtree(run, ignore_errors=True)


@pytest.mark.parametrize("step", [3, 12, 19, 25])
def test_a_step_on_disk_fails(step, undisturbed, trainer, tiny_corpus, tmp_path):
    run = tmp_path / "run"
    assert_survives(Fault(at="disk", call=step, do="ENOSPC", folder=str(run)), run, undisturbed, trainer, tiny_corpus)


def assert_survives(fault: Fault, run: Path, undisturbed: Path, trainer, tiny_corpus) -> None:
    flags = tiny_corpus.flags(train_iters=STEPS, save=run, save_interval=2)
    ended = trainer.run(flags, faults=[fault])
    assert ended.code in (0, 2) and "Traceback" not in ended.output, (fault, ended.output)
    # A disk that refuses a removal keeps what was to be removed, until the next start.
    assert all(name.startswith(".seen_by_all.") for name in leftovers_of(run)), fault
    trainer.finish(flags)
    assert leftovers_of(run) == [], fault
    assert tensors_of(run, STEPS) == tensors_of(undisturbed, STEPS), fault
    assert losses_of(run) == losses_of(undisturbed), fault
