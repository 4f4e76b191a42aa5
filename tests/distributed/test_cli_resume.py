"""Stopped and started again: the same bits on the same layout, the same samples on another, a refusal otherwise."""

import os
import shutil
from pathlib import Path

import pytest
from faults import Fault
from run_folder import assert_sound, iterations_of, leftovers_of, lineage_of, listing, losses_of, metrics_of, tensors_of

STEPS = 6
VALIDATION = {"eval_interval": 2, "eval_iters": 1, "split": "8,2,0"}


@pytest.fixture(scope="module")
def undisturbed(trainer, tiny_corpus, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    trainer.finish(tiny_corpus.flags(train_iters=STEPS, save=run, save_interval=3, **VALIDATION))
    return run


@pytest.fixture
def half_way(undisturbed, tmp_path):
    """The run as it was after 3 steps, as far as checkpoints tell."""
    run = tmp_path / "half_way"
    shutil.copytree(undisturbed, run)
    shutil.rmtree(run / f"iter_{STEPS:07d}")
    return run


def test_stopped_after_every_step(trainer, undisturbed, tiny_corpus, tmp_path):
    """Dropout on: losses, norms, rates, validation losses, weights and moments are the undisturbed run's bits."""
    run = tmp_path / "run"
    flags = tiny_corpus.flags(train_iters=STEPS, save=run, exit_interval=1, keep_last=1, **VALIDATION)
    for step in range(1, STEPS):
        assert trainer.run(flags).code == 75
        assert iterations_of(run) == [step]
    trainer.finish(flags)
    assert metrics_of(run) == metrics_of(undisturbed)
    assert sum("lm loss validation" in line for line in metrics_of(run)) == STEPS // 2
    assert tensors_of(run, STEPS) == tensors_of(undisturbed, STEPS)
    assert trainer.finish(flags).output.count("nothing to do") == 1
    assert metrics_of(run) == metrics_of(undisturbed)


@pytest.mark.parametrize(
    ("ranks", "changed"),
    [
        (1, {"micro_batch_size": 1, "num_workers": 3}),
        (2, {"micro_batch_size": 1}),
        (2, {"tensor_model_parallel_size": 2, "sequence_parallel": True}),
        (2, {"pipeline_model_parallel_size": 2, "recompute_granularity": "selective", "micro_batch_size": 4}),
    ],
    ids=["micro-batch and workers", "DP2", "TP2", "PP2"],
)
def test_goes_on_otherwise(ranks, changed, trainer, tiny_corpus, plain_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(plain_run, run)
    shutil.rmtree(run / f"iter_{STEPS:07d}")
    flags = tiny_corpus.flags(train_iters=STEPS, save=run, **{**NO_DROPOUT, **changed})
    trainer.finish(flags, ranks=ranks)
    assert losses_of(run) == pytest.approx(losses_of(plain_run), rel=1e-5)
    consumed = [line["consumed_samples"] for line in metrics_of(run)]
    assert consumed == [line["consumed_samples"] for line in metrics_of(plain_run)]


NO_DROPOUT = {"hidden_dropout": 0, "attention_dropout": 0}


@pytest.fixture(scope="module")
def plain_run(trainer, tiny_corpus, tmp_path_factory):
    run = tmp_path_factory.mktemp("plain") / "run"
    trainer.finish(tiny_corpus.flags(train_iters=STEPS, save=run, save_interval=3, **NO_DROPOUT))
    losses = losses_of(run)
    assert len({round(loss, 4) for loss in losses.values()}) == STEPS  # other samples would show
    return run


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"hidden_size": 64}, "--hidden-size is 64 here and 32 in"),
        ({"num_layers": 4}, "--num-layers is 4 here and 2 in"),
        ({"untie_embeddings_and_output_weights": True}, "--untie-embeddings-and-output-weights is True here and False"),
        ({"seed": 7}, "--seed is 7 here and 1234 in"),
        ({"seq_length": 16}, "--seq-length is 16 here and 32 in"),
        ({"reset_attention_mask": True}, "--reset-attention-mask is True here and False in"),
    ],
)
def test_another_run_is_refused(changed, sentence, half_way, trainer, tiny_corpus):
    before = listing(half_way)
    ended = trainer.run(tiny_corpus.flags(train_iters=STEPS, save=half_way, **changed))
    assert ended.code == 2 and "Traceback" not in ended.output
    assert any(sentence in line for line in ended.errors), ended.output
    assert "parameters" not in ended.output and listing(half_way) == before


def test_another_tokenizer_is_refused(half_way, trainer, tiny_corpus, tmp_path):
    from megatron.tokenization.options import TrainTokenizerOptions
    from megatron.tokenization.train import train_tokenizer

    other = tmp_path / "other.model"
    options = TrainTokenizerOptions(output_prefix=str(tmp_path / "other"), vocab_size=400)
    other.write_bytes(train_tokenizer([f"number {n} follows {n - 1}" for n in range(300)], options))
    ended = trainer.run(tiny_corpus.flags(train_iters=STEPS, save=half_way, tokenizer_model=other))
    assert ended.code == 2
    assert any("--tokenizer-model" in line and "is not the one" in line for line in ended.errors), ended.output


def test_load_goes_on_in_another_folder(half_way, undisturbed, trainer, tiny_corpus, tmp_path):
    run, before = tmp_path / "run", listing(half_way)
    flags = tiny_corpus.flags(train_iters=STEPS, save=run, load=half_way, **VALIDATION)
    trainer.finish(flags)
    assert tensors_of(run, STEPS) == tensors_of(undisturbed, STEPS)
    assert metrics_of(run) == [line for line in metrics_of(undisturbed) if line["iteration"] > 3]
    assert lineage_of(run, STEPS) == lineage_of(undisturbed, STEPS)
    assert listing(half_way) == before


def test_load_iteration(undisturbed, trainer, tiny_corpus, tmp_path):
    run = tmp_path / "run"
    flags = tiny_corpus.flags(train_iters=STEPS, save=run, load=undisturbed, load_iteration=3, **VALIDATION)
    trainer.finish(flags)
    assert tensors_of(run, STEPS) == tensors_of(undisturbed, STEPS)
    absent = trainer.run(tiny_corpus.flags(train_iters=STEPS, load=undisturbed, load_iteration=4))
    assert absent.code == 2 and "--load-iteration 4" in absent.errors[0]


def test_finetune_takes_the_weights_alone(undisturbed, trainer, tiny_corpus, tmp_path):
    """A new run, of another seed; its own restart no longer looks at the folder it came from."""
    run = tmp_path / "run"
    flags = tiny_corpus.flags(train_iters=4, save=run, load=undisturbed, finetune=True, seed=7, exit_interval=2)
    first = trainer.run(flags)
    assert first.code == 75, first.output
    assert losses_of(run)[1] < losses_of(undisturbed)[1]
    second = trainer.run(flags)
    assert second.code == 0 and sorted(losses_of(run)) == [1, 2, 3, 4]
    assert f"loaded {run}" in second.output and f"loaded {undisturbed}" not in second.output
    stages = lineage_of(run, 4)
    assert len(stages) == 2 and stages[0] == lineage_of(undisturbed, STEPS)[0] and stages[1]["tokens"] > 0


def test_retention(trainer, tiny_corpus, tmp_path):
    run = tmp_path / "run"
    ended = trainer.finish(tiny_corpus.flags(train_iters=STEPS, save=run, save_interval=1, keep_last=2, keep_every=3))
    assert iterations_of(run) == [3, 5, 6]
    assert "removed the checkpoint of iteration 4 (--keep-last 2)" in ended.output
    assert (run / "latest_checkpointed_iteration.txt").read_text().strip() == "6"


def test_retention_counts_sound_checkpoints_only(undisturbed, trainer, tiny_corpus, tmp_path):
    """The newest one is damaged: what is saved on the way back to its iteration must not be removed for its sake."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    shard = run / f"iter_{STEPS:07d}" / "shard_00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    flags = tiny_corpus.flags(train_iters=STEPS, save=run, save_interval=1, keep_last=1, **VALIDATION)
    killed = trainer.run(flags, faults=[Fault(at="megatron.loop.loop:train_step", call=3)])
    assert killed.code == -9 and iterations_of(run) == [5, 6]
    assert_sound(run / "iter_0000005")
    trainer.finish(flags)
    assert iterations_of(run) == [6] and tensors_of(run, STEPS) == tensors_of(undisturbed, STEPS)
    assert (run / "iter_0000006.damaged" / shard.name).stat().st_size == shard.stat().st_size - 1


def test_a_damaged_checkpoint_that_training_went_past_is_kept_aside(trainer, tiny_corpus, tmp_path):
    """It takes no place among --keep-last, and nothing removes it."""
    run = tmp_path / "run"
    trainer.finish(tiny_corpus.flags(train_iters=4, save=run, save_interval=2))
    shard = run / "iter_0000004" / "shard_00000.safetensors"
    damaged = shard.read_bytes()[:-1]
    shard.write_bytes(damaged)
    ended = trainer.finish(tiny_corpus.flags(train_iters=6, save=run, save_interval=3, keep_last=2))
    assert iterations_of(run) == [3, 6]
    assert (run / "iter_0000004.damaged" / shard.name).read_bytes() == damaged
    assert "gone past the damaged" in ended.output and "it is now iter_0000004.damaged" in ended.output


def test_rank_0_decides_which_checkpoint_is_the_newest(trainer, tiny_corpus, tmp_path):
    """Another node's listing of the shared folder is older: its ranks must not load an older checkpoint."""
    run, plain = tmp_path / "run", tmp_path / "plain"
    flags = {"train_iters": 4, "tensor_model_parallel_size": 2, "save_interval": 1}
    trainer.finish(tiny_corpus.flags(save=plain, **flags), ranks=2)
    shutil.copytree(plain, run)
    shutil.rmtree(run / "iter_0000004")
    shutil.rmtree(run / "iter_0000003")
    stale = Fault(at="listing", call=1, rank=1)
    trainer.finish(tiny_corpus.flags(save=run, **flags), ranks=2, faults=[stale])
    assert tensors_of(run, 4) == tensors_of(plain, 4)
    nothing = Fault(at="listing", call=99, rank=1)
    refused = trainer.run(tiny_corpus.flags(save=run, **flags), ranks=2, faults=[nothing])
    assert refused.codes[0] == 2 and "Traceback" not in refused.output
    assert f"rank 0 would start from {run} and rank 1 from nothing" in refused.errors[0]


def test_time_is_over(trainer, tiny_corpus, tmp_path):
    run = tmp_path / "run"
    ended = trainer.run(tiny_corpus.flags(train_iters=2000, save=run, exit_duration_in_mins=0.005))
    assert ended.code == 75 and "--exit-duration-in-mins is over" in ended.output
    assert iterations_of(run) == [max(losses_of(run))]


def test_somebody_elses_folder(trainer, tiny_corpus, tmp_path):
    """A folder of another program has the name of our checkpoint: it is never removed to make room."""
    theirs = tmp_path / "run" / "iter_0000002" / "mp_rank_00"
    theirs.mkdir(parents=True)
    ended = trainer.run(tiny_corpus.flags(train_iters=2, save=tmp_path / "run"))
    assert ended.code == 2 and "iter_0000002 is not a checkpoint of this program" in ended.errors[0]
    assert listing(tmp_path / "run") == ["iter_0000002", "iter_0000002/mp_rank_00"]


def test_two_jobs_one_folder(trainer, tiny_corpus, tmp_path):
    """The owner is named; the lock of a killed owner is no lock."""
    from megatron.basics.lock_file import LOCK_NAME, lock_folder

    run = tmp_path / "run"
    flags = tiny_corpus.flags(train_iters=2, save=run)
    with lock_folder(run):
        ended = trainer.run(flags)
        assert ended.code == 2 and f"is being written by process {os.getpid()} on" in ended.errors[0]
        assert [path.name for path in run.iterdir()] == [LOCK_NAME]
    assert not run.exists()  # nothing had begun
    killed = trainer.run(flags, faults=[Fault(at="megatron.loop.loop:train_step", call=1)])
    assert killed.code == -9 and (Path(run) / LOCK_NAME).read_text().startswith("process")
    trainer.finish(flags)
    assert leftovers_of(run) == []
