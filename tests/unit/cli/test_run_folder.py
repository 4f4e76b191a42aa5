"""What is asked of the --save folder before a run begins."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from megatron.basics.errors import UserError
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.folders import checkpoint_folder
from megatron.checkpoint.options import CheckpointOptions
from megatron.cli.run_folder import require_space
from megatron.layout.options import LayoutOptions
from megatron.loop.options import OptimizerOptions
from megatron.loop.saving import Saver
from megatron.loop.setup import compute_dtype, make_trainable
from tests.oracles.one_process_model import build_decoder, one_process_grid, recipe_of


@pytest.mark.parametrize("settings", [{}, {"bf16": True}, {"optimizer": "adafactor"}], ids=str)
def test_a_checkpoint_takes_the_space_that_is_asked_for(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, model = OptimizerOptions(**settings), {"num_layers": 1, "hidden_size": 128, "num_attention_heads": 2}
    config, chunk = build_decoder(recipe_of(model, max_positions=8), dtype=compute_dtype(options))
    trainable, grid = make_trainable(config, [chunk], LayoutOptions(), options), one_process_grid()
    contents = Contents(progress=Progress(iteration=1), run={}, tokenizer={}, lineage=[], optimizer={})
    Saver(CheckpointOptions(save=str(tmp_path)), tmp_path, trainable, grid, print).save(contents, wait=True)
    (shard,) = checkpoint_folder(tmp_path, 1).glob("*.safetensors")
    written = sum(tensor.nbytes for tensor in load_file(shard).values())

    free = SimpleNamespace(free=written)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    require_space(tmp_path, trainable, grid)
    free.free -= 1
    with pytest.raises(UserError, match=r"a checkpoint needs 0\.00\d+ GB and 0\.00\d+ GB are free"):
        require_space(tmp_path, trainable, grid)
