"""python -m benchmarks.gpu.reload DEVICE RUN_FOLDER COPY: loads a run's newest checkpoint and saves it from there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from megatron.checkpoint.options import CheckpointOptions
from megatron.cli.origin import Origin, newest_contents
from megatron.cli.resume import start_from
from megatron.cli.run_config import RunConfig
from megatron.cli.start_up import quiet_libraries
from megatron.device.device import choose_device


def main() -> None:
    """Build the model that the checkpoint describes, load all of it, and write what is in memory then."""
    device_name, source, copy = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    quiet_libraries()
    device = choose_device(device_name)
    from megatron.cli.training import build_model
    from megatron.cli.wire import attention_backend
    from megatron.layout import grid as grids
    from megatron.loop.saving import Saver
    from megatron.tokenization.tokenizer import load_tokenizer

    origin = Origin(source, None, weights_only=False)
    contents = newest_contents(origin)
    config = RunConfig.from_dict(contents.run)
    # Another seed: what was not loaded would not be equal by chance.
    config = replace(config, batch=replace(config.batch, seed=config.batch.seed + 1))
    tokenizer = load_tokenizer(config.data.tokenizer_type, config.data.tokenizer_model, config.data.add_special_tokens)
    grid = grids.initialise(config.layout, device)
    _, attend = attention_backend(config, device)
    model = build_model(config, tokenizer, grid, device, attend)
    start_from(origin, config, tokenizer, model, grid, print)
    copy.mkdir(parents=True)
    Saver(CheckpointOptions(save=str(copy)), copy, model, grid, print).save(contents, wait=True)
    grids.shut_down()


if __name__ == "__main__":
    main()
