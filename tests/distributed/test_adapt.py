"""adapt.py as people start it: other layouts, kills, lineage, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TinyCorpus
from faults import Fault
from run_folder import iterations_of, lineage_of, losses_of, tensors_of
from safetensors import safe_open
from task_files import write_task
from trainer import Trainer

SHAPE = {"num_attention_heads": 4, "num_query_groups": 2, "activation": "swiglu", "position_embedding_type": "relative"}
STEPS = 4


def whole_tensors(run: Path, iteration: int) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, put together from the pieces of all ranks."""
    folder, found = run / f"iter_{iteration:07d}", {}
    for name, entry in tensors_of(run, iteration).items():
        found[name] = torch.empty(entry["shape"])
        for file, key, offset, shape, _ in entry["pieces"]:
            place = tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))
            with safe_open(folder / file, framework="pt") as shard:
                found[name][place] = shard.get_tensor(key)
    return found


def words(source: Path, target: Path, to: str, **flags: object) -> list[str]:
    """What adapt.py is told: nothing of model, data or tokenizer."""
    told = {"device": "cpu", "global_batch_size": 4, "eval_iters": 0, "train_iters": STEPS, **flags}
    pairs = [[f"--{name.replace('_', '-')}", *str(value).split()] for name, value in told.items()]
    return ["--load", str(source), "--save", str(target), "--to", to, *(word for pair in pairs for word in pair)]


@pytest.fixture(scope="module")
def causal(tiny_corpus: TinyCorpus, trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal decoder trained under TP2."""
    run = tmp_path_factory.mktemp("adapt") / "causal"
    flags = tiny_corpus.flags(
        **SHAPE, seq_length=64, train_iters=STEPS, save_interval=2, save=run, tensor_model_parallel_size=2
    )
    trainer.finish(flags, ranks=2)
    return run


def test_another_layout_changes_no_bit_of_weights_and_moments(causal: Path, trainer: Trainer, tmp_path: Path) -> None:
    target = tmp_path / "prefix"
    adapted = words(causal, target, "prefix_decoder", objective="span_corruption", pipeline_model_parallel_size=2)
    ended = trainer.finish(adapted, architecture=None, ranks=2)
    assert "causal_decoder:full_lm 1.02k + prefix_decoder:span_corruption" in ended.output
    before, after = whole_tensors(causal, STEPS), whole_tensors(target, STEPS)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


def test_round_trip_through_an_encoder_decoder(causal: Path, trainer: Trainer, tmp_path: Path) -> None:
    both, back = tmp_path / "both", tmp_path / "back"
    flags = {"objective": "span_corruption", "pipeline_model_parallel_size": 2}
    trainer.finish(words(causal, both, "encoder_decoder", **flags), architecture=None, ranks=2)
    trainer.finish(words(both, back, "causal_decoder", objective="full_lm"), architecture=None)
    before, after = whole_tensors(causal, STEPS), whole_tensors(back, STEPS)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        if "relative_bias" in name:  # one table for a stack: that of the first layer
            tensor = before[name.replace("layers.1", "layers.0")]
        assert torch.equal(tensor, after[name]), name


def test_a_killed_run_goes_on_from_its_own_checkpoints(causal: Path, trainer: Trainer, tmp_path: Path) -> None:
    whole, killed, source = tmp_path / "whole", tmp_path / "killed", tmp_path / "source"
    shutil.copytree(causal, source)
    told = {"objective": "prefix_lm", "train_iters": 8, "save_interval": 2, "lr_decay_iters": 8}
    trainer.finish(words(causal, whole, "prefix_decoder", **told), architecture=None, ranks=2)
    fault = Fault(at="megatron.loop.loop:train_step", call=4)  # which is step 8
    trainer.run(words(source, killed, "prefix_decoder", **told), architecture=None, ranks=2, faults=[fault])
    assert iterations_of(killed) == [4, 6]
    shutil.rmtree(source)  # from its first checkpoint on the run needs it no more
    ended = trainer.finish(words(source, killed, "prefix_decoder", **told), architecture=None, ranks=2)
    assert f"loaded {killed}/iter_0000006" in ended.output and "adapted" not in ended.output
    assert tensors_of(killed, 8) == tensors_of(whole, 8)
    assert losses_of(killed) == losses_of(whole)
    assert list(losses_of(whole)) == [5, 6, 7, 8]  # the schedule of the source goes on
    stages = [(stage["architecture"], stage["objective"], stage["tokens"]) for stage in lineage_of(killed, 8)]
    assert stages == [("causal_decoder", "full_lm", 4 * 4 * 64), ("prefix_decoder", "prefix_lm", 4 * 4 * 64)]


def test_a_run_that_goes_on_behind_its_decay_says_so(causal: Path, trainer: Trainer, tmp_path: Path) -> None:
    target = tmp_path / "target"
    ended = trainer.finish(
        words(causal, target, "prefix_decoder", objective="prefix_lm", train_iters=5), architecture=None
    )
    assert f"warning: the decay ends at step {STEPS} of 5" in ended.output
    (line,) = (target / "metrics.jsonl").read_text().splitlines()[:1]
    assert json.loads(line)["learning-rate"] == 0


def test_a_schedule_of_its_own_begins_at_step_1(causal: Path, trainer: Trainer, tmp_path: Path) -> None:
    target = tmp_path / "rewarmed"
    flags = {"objective": "full_lm", "schedule": "rewarm", "optimizer_state": "fresh", "train_iters": 2}
    trainer.finish(
        words(causal, target, "causal_decoder", lr=0.5, lr_warmup_iters=1, load_iteration=2, **flags), architecture=None
    )
    lines = [json.loads(line) for line in (target / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2] and lines[0]["learning-rate"] == 0.5
    begun = whole_tensors(target, 0)
    weights = {name: tensor for name, tensor in whole_tensors(causal, 2).items() if "exp_avg" not in name}
    for name, tensor in weights.items():
        assert torch.equal(begun[name], tensor), name
    assert not any(tensor.any() for name, tensor in begun.items() if "exp_avg" in name)


@pytest.mark.parametrize(
    ("target", "rows"),
    [
        ("prefix_decoder", {"seq_length": 48}),
        pytest.param("encoder_decoder", {"seq_length": 32, "decoder_seq_length": 16}, marks=pytest.mark.slow),
    ],
)
def test_finetuning_on_tasks_goes_on_under_another_layout(
    target: str, rows: dict[str, int], causal: Path, tiny_corpus: TinyCorpus, trainer: Trainer, tmp_path: Path
) -> None:
    tasks = ["2", write_task(tiny_corpus, tmp_path / "last", 60), "1", write_task(tiny_corpus, tmp_path / "first", 40)]
    told = {"data_path": " ".join(tasks), "split": "8,2", "eval_iters": 1, "save_interval": 2} | rows
    told |= {"hidden_dropout": 0, "attention_dropout": 0}  # whose masks differ between layouts
    whole = tmp_path / "whole"
    finetune = {"architecture": "finetune_t0", "ranks": 2}
    # Under sequence parallelism the head reads all positions, else those of targets.
    flags = words(causal, whole, target, tensor_model_parallel_size=2, sequence_parallel=True, **told)
    ended = trainer.finish(flags, **finetune)
    assert "train: 80 examples of 2 data sets packed into about " in ended.output
    assert f"causal_decoder:full_lm 1.02k + {target}:multitask" in ended.output
    assert list(losses_of(whole)) == [1, 2, 3, 4]
    for layout in ("pipeline", "tensor"):
        resumed = tmp_path / layout
        shutil.copytree(whole, resumed, ignore=shutil.ignore_patterns("iter_0000004"))
        flags = words(causal, resumed, target, **{f"{layout}_model_parallel_size": 2}, **told)
        ended = trainer.finish(flags, **finetune)
        assert f"loaded {resumed}/iter_0000002" in ended.output
        assert losses_of(resumed) == pytest.approx(losses_of(whole), rel=1e-4)
        assert lineage_of(resumed, 4)[1]["objective"] == "multitask"


def test_what_it_refuses(causal: Path, trainer: Trainer, tmp_path: Path) -> None:
    refused = {
        "--hidden-size 64 is not the 32 of": {"hidden_size": 64},
        "--num-layers 4 is not the 2 of": {"num_layers": 4},
        "--position-embedding-type rope is not the relative of": {"position_embedding_type": "rope"},
        "--from-stack has no effect from causal_decoder to prefix_decoder": {"from_stack": "encoder"},
        "--objective masked is not one of prefix_decoder": {"objective": "masked"},
        "--optimizer-state keep takes no moments of adam to adafactor": {"optimizer": "adafactor"},
        "--load-iteration 3": {"load_iteration": 3},
    }
    for sentence, flags in refused.items():
        ended = trainer.run(words(causal, tmp_path / "never", "prefix_decoder", **flags), architecture=None)
        assert ended.code == 2
        (error,) = ended.errors
        assert sentence in error, error
    ended = trainer.run(["--device", "cpu"], architecture=None)
    assert [error.split(";")[0] for error in ended.errors] == ["error: --to is missing", "error: --load is missing"]
    ended = trainer.run(words(causal, causal, "prefix_decoder"), architecture=None)
    assert "is --load; give the adapted run a folder of its own" in ended.output
    assert not (tmp_path / "never").exists()
