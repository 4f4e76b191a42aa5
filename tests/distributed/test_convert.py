"""tools/convert_checkpoint.py between real runs: every layout leaves as the same files, and what comes back trains."""

from __future__ import annotations

import filecmp
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch.distributed as dist
from launch import ROOT, environment_for
from run_folder import losses_of
from trainer import Trainer

from megatron.checkpoint.load import load_tensors
from megatron.checkpoint.manifest import read_manifest
from megatron.checkpoint.save import PendingSave
from megatron.checkpoint.state import model_state, tensors_to_save
from megatron.cli.convert import main
from megatron.cli.run_config import RunConfig
from megatron.cli.wire import model_recipe
from megatron.layout import grid as grids
from tests.oracles.one_process_model import build_decoder, one_process_grid

if TYPE_CHECKING:
    from conftest import TinyCorpus

SCRIPT = ROOT / "tools" / "convert_checkpoint.py"
STEPS = 2
SHAPE = {
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "normalization": "RMSNorm",
    "activation": "swiglu",
    "position_embedding_type": "rope",
    "disable_bias_linear": True,
    "ffn_hidden_size": 64,  # a run folder that was imported says sizes, which flags have to repeat
    "max_position_embeddings": 32,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
}


def convert(*words: object) -> None:
    main([str(word) for word in words])


@pytest.fixture(scope="module")
def runs(tiny_corpus: TinyCorpus, trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of four processes (TP2 PP2), and one whose only process has saved the same weights."""
    root = tmp_path_factory.mktemp("convert")
    spread, alone = root / "spread" / "run", root / "alone" / "run"
    layout = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}
    trainer.finish(tiny_corpus.flags(**SHAPE, **layout, train_iters=STEPS, save=spread, lr=1e-2), ranks=4)
    folder = spread / f"iter_{STEPS:07d}"
    manifest = read_manifest(folder)
    assert len(manifest.files) == 4
    config = RunConfig.from_dict(manifest.contents.run)
    _, model = build_decoder(model_recipe(config, manifest.contents.tokenizer["vocabulary_size"]))
    load_tensors(folder, manifest, [model], None)
    grid = one_process_grid()
    PendingSave.start(tensors_to_save(model_state([model])), alone, manifest.contents, grid).finish()
    assert len(read_manifest(alone / folder.name).files) == 1
    return spread, alone


@pytest.fixture(scope="module")
def export(runs: tuple[Path, Path]) -> Path:
    """What the command makes of the four processes' run, as people start it."""
    folder = runs[0].parent / "export"
    words = [sys.executable, SCRIPT, "to-hf", "--load", runs[0], "--save", folder, "--max-shard-size", "40KB"]
    environment = environment_for({"HF_HUB_OFFLINE": "1"})
    done = subprocess.run([*map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.rstrip().endswith("verdict: passed")
    return folder


def test_every_layout_leaves_as_the_same_files(runs: tuple[Path, Path], export: Path) -> None:
    again = runs[1].parent / "export"
    convert("to-hf", "--load", runs[1], "--save", again, "--max-shard-size", "40KB")
    names = sorted(path.name for path in export.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert {"config.json", "model.safetensors.index.json", "tokenizer.json", "verdict.json", "README.md"} <= {*names}
    # The figures of a verdict may depend on the threads of a process.
    same = [name for name in names if name not in ("verdict.json", "README.md")]
    assert filecmp.cmpfiles(export, again, same, shallow=False) == (same, [], [])


@pytest.fixture(scope="module")
def back(export: Path, tiny_corpus: TinyCorpus) -> Path:
    """The run folder that the export becomes."""
    run = export.parent / "back"
    convert("from-hf", "--load", export, "--save", run, "--tokenizer-model", tiny_corpus.tokenizer)
    verdict = json.loads((run / "verdict.json").read_text())
    assert verdict["verdict"] == "passed" and verdict["tokenizer"]["is_same"] is None
    return run


def test_what_comes_back_trains_as_what_left(
    runs: tuple[Path, Path], back: Path, tiny_corpus: TinyCorpus, trainer: Trainer, tmp_path: Path
) -> None:
    losses = []
    for source in (runs[0], back):
        target = tmp_path / source.name
        settings = {**SHAPE, "train_iters": 1, "lr": 1e-3, "seed": 3, "tensor_model_parallel_size": 2}
        trainer.finish(tiny_corpus.flags(**settings, load=source, save=target, finetune=True), ranks=2)
        losses.append(losses_of(target))
    assert losses[0] == losses[1] != {}


def test_what_comes_back_is_adapted(back: Path, tiny_corpus: TinyCorpus, trainer: Trainer, tmp_path: Path) -> None:
    words = ["--load", back, "--save", tmp_path / "prefix", "--to", "prefix_decoder", "--objective", "prefix_lm"]
    words += ["--optimizer-state", "fresh", "--schedule", "rewarm", "--train-iters", 1, "--global-batch-size", 4]
    words += ["--data-path", tiny_corpus.prefix, "--device", "cpu", "--eval-iters", 0, "--lr", 1e-3]
    words += ["--tensor-model-parallel-size", 2]
    ended = trainer.finish([str(word) for word in words], architecture=None, ranks=2)
    assert losses_of(tmp_path / "prefix") and "prefix_decoder:prefix_lm" in ended.output


def test_what_comes_back_writes_what_left_would_have(
    runs: tuple[Path, Path], export: Path, back: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from megatron.cli.generate import main as generate

    texts = []
    grids.shut_down()  # the commands make their own
    convert("verify", "--load", runs[0], "--hf", export)
    assert not dist.is_initialized()
    for run in (runs[0], back):
        capsys.readouterr()
        words = ["--prompt", "the quick", "--max-new-tokens", "8", "--temperature", "0", "--device", "cpu"]
        generate(["--load", str(run), *words])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and texts[0].startswith("the quick")
