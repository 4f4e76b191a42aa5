"""SIGKILL before every step that a save takes on disk: the older checkpoint or the new one, and nothing between."""

import shutil

import pytest
from faults import Fault
from run_folder import assert_sound, iterations_of, listing, losses_of, tensors_of


@pytest.fixture(scope="module")
def half_way(trainer, tiny_corpus, tmp_path_factory):
    """A run that has stopped and saved after 2 of 4 steps."""
    run = tmp_path_factory.mktemp("half_way") / "run"
    ended = trainer.run(tiny_corpus.flags(train_iters=4, save=run, exit_interval=2))
    assert ended.code == 75 and iterations_of(run) == [2]
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [{}, {"async_save": True, "save_interval": 3}],
    ids=["at once", "beside training"],
)
def test_every_step_of_a_save(way, half_way, trainer, tiny_corpus, tmp_path):
    def flags(run):
        return tiny_corpus.flags(train_iters=4, save=run, keep_last=1, **way)

    plain, record = tmp_path / "plain", tmp_path / "record"
    shutil.copytree(half_way, plain)
    trainer.finish(flags(plain), faults=[Fault(at="disk", call=0, folder=str(plain), record=str(record))])
    steps = record.read_text().splitlines()
    assert len(steps) > 20 and any("half of" in step for step in steps)
    for number, step in enumerate(steps, start=1):
        run = tmp_path / f"killed{number}"
        shutil.copytree(half_way, run)
        killed = trainer.run(flags(run), faults=[Fault(at="disk", call=number, folder=str(run))])
        assert killed.code == -9, (step, killed.output)
        assert iterations_of(run), step
        for iteration in iterations_of(run):
            assert_sound(run / f"iter_{iteration:07d}")
        trainer.finish(flags(run))
        assert tensors_of(run, 4) == tensors_of(plain, 4), step
        assert losses_of(run) == losses_of(plain), step
        assert listing(run) == listing(plain), step
        shutil.rmtree(run)
