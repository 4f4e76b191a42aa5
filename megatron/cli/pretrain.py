"""`torchrun pretrain_*.py`: from a command line to a trained model."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.architectures.legal_pairs import legal_objectives
from megatron.basics.errors import exit_on_user_error
from megatron.basics.lock_file import lock_folder
from megatron.cli.origin import Origin, find_origin
from megatron.cli.run_config import RunConfig, parse_pretrain
from megatron.cli.start_up import quiet_libraries

if TYPE_CHECKING:
    from megatron.adaptation.options import AdaptationOptions
    from megatron.device.device import Device
    from megatron.layout.grid import Grid
    from megatron.tokenization.tokenizer import Tokenizer


def main(architecture: str, objective: str) -> None:
    """Pretrain one architecture; `objective` is the default of --objective. Exits with the code of the run."""
    exit_on_user_error(lambda: pretrain(sys.argv[1:], architecture, objective))


def pretrain(argv: Sequence[str], architecture: str, objective: str) -> int:
    """Parse, check, build, train. Every wrong setting is answered before torch is imported."""
    started = time.monotonic()
    config = parse_pretrain(
        argv,
        architecture=architecture,
        default_objective=objective,
        legal_objectives=legal_objectives(architecture),
    )
    return train(config, started)


def train(config: RunConfig, started: float, adaptation: AdaptationOptions | None = None) -> int:
    """Train what the settings say, from scratch, from a checkpoint, or from what `adaptation` makes of one.

    started: time.monotonic() when the command began. Returns the exit code.
    """
    quiet_libraries()
    from megatron.device.device import choose_device, require_supported_versions

    require_supported_versions()
    device = choose_device(config.layout.device)  # before anything that imports megatron.core
    from megatron.cli.resume import check_origin
    from megatron.tokenization.tokenizer import load_tokenizer

    data = config.data
    tokenizer = load_tokenizer(data.tokenizer_type, data.tokenizer_model, data.add_special_tokens)
    origin = find_origin(config, adaptation)
    if origin is not None:
        check_origin(origin, config, tokenizer)
    from megatron.layout import grid as grids
    from megatron.loop.stop_signal import ignore_stop_signals

    grid = grids.initialise(config.layout, device)
    try:
        exit_code = _train(config, tokenizer, origin, device, grid, started)
        grids.wait_for_all()
        ignore_stop_signals()
        return exit_code
    finally:
        grids.shut_down()


def _train(
    config: RunConfig, tokenizer: Tokenizer, origin: Origin | None, device: Device, grid: Grid, started: float
) -> int:
    from megatron.checkpoint import folders
    from megatron.cli.training import build_training

    with contextlib.ExitStack() as held:
        if grid.is_main and config.checkpoint.save:
            run_folder = Path(config.checkpoint.save)
            held.enter_context(lock_folder(run_folder))
            folders.remove_unfinished(run_folder)
        return build_training(config, tokenizer, origin, device, grid, started=started).run()
