"""One Training from a RunConfig: model, data, starting point, hooks and loop."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from megatron.architectures.flops import flops_per_token
from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.weights import count_parameters
from megatron.attention.registry import AttentionBackend
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.state import scalar_optimizer_state
from megatron.cli.figures import model_shape, visible_pairs
from megatron.cli.origin import Origin
from megatron.cli.resume import StartingPoint, start_from
from megatron.cli.run_config import RunConfig
from megatron.cli.run_folder import require_shared, require_space
from megatron.cli.run_record import lineage_after, lineage_line, tokenizer_record, write_run_record
from megatron.cli.wire import attention_backend, build_loaders, model_recipe
from megatron.cli.wire_rows import row_rules
from megatron.device.device import Device
from megatron.layout.grid import Grid
from megatron.loop.batch_ramp import BatchRamp
from megatron.loop.hooks.protocol import RunFacts
from megatron.loop.hooks.registry import HookSetup, build_hooks
from megatron.loop.loop import Training
from megatron.loop.saving import Saver
from megatron.loop.setup import TrainableModel, build_chunks, compute_dtype, make_trainable
from megatron.loop.step import LossRule
from megatron.loop.stop_signal import StopSignal
from megatron.loop.throughput import Throughput, peak_tflops_of
from megatron.tokenization.tokenizer import Tokenizer


def build_training(
    config: RunConfig, tokenizer: Tokenizer, origin: Origin | None, device: Device, grid: Grid, *, started: float
) -> Training:
    """Everything that trains, with the weights loaded; `started`: time.monotonic() when the command began.

    A collective.
    """
    say = speaker(grid)
    stop_signal = StopSignal()
    stop_signal.install()
    if config.checkpoint.save:
        require_shared(Path(config.checkpoint.save), grid)
    architecture = ARCHITECTURES[config.architecture]()
    loaders = build_loaders(config, tokenizer, grid, device)
    backend, attend = attention_backend(config, device)
    model = build_model(config, tokenizer, grid, device, attend)
    saver = _saver(config, model, grid, say)
    start = start_from(origin, config, tokenizer, model, grid, say)
    shape = model_shape(config, tokenizer.vocabulary_size)
    parameters = count_parameters(shape)
    model_flops = flops_per_token(shape, visible_pairs(config, tokenizer))
    peak_tflops = config.logging.peak_tflops or peak_tflops_of(device.name)
    facts = RunFacts(
        run_folder=Path(config.checkpoint.save) if config.checkpoint.save else None,
        is_main=grid.is_main,
        start_iteration=start.progress.iteration,
        train_iters=config.batch.train_iters,
        owes_validation=start.progress.owes_validation,
        description=(
            f"{config.architecture}:{config.objective}, {parameters.total:,} parameters, {grid.describe()}"
            f"{_split(config, tokenizer)} on {device.name}, "
            f"{str(compute_dtype(config.optimizer)).removeprefix('torch.')}, attention {backend}"
        ),
    )
    if facts.run_folder and grid.is_main:
        figures = {
            "iteration": start.progress.iteration,
            "consumed_tokens": start.progress.consumed_tokens,
            "trained_before": lineage_line(start.earlier_lineage),
            "layout": grid.describe(),
            "device": device.name,
            "parameters": parameters.total,
            "non_embedding_parameters": parameters.non_embedding,
            "flops_per_token": model_flops,
        }
        write_run_record(facts.run_folder, config, tokenizer, figures)
    hooks = build_hooks(HookSetup(logging=config.logging, run_folder=facts.run_folder, settings=config.as_dict()))
    contents_at = _contents(config, tokenizer, model, start)
    if saver and start.is_adapted:  # from here on the run needs its source no more
        saver.save(contents_at(start.progress), wait=True)
    return Training(
        model=model,
        rule=LossRule(
            architecture=architecture,
            vocabulary_size=tokenizer.vocabulary_size,
            z_loss_coeff=config.optimizer.z_loss_coeff,
        ),
        grid=grid,
        device=device,
        train_source=loaders["train"],
        valid_source=loaders.get("valid"),
        ramp=BatchRamp(config.batch, grid.data_size),
        throughput=Throughput(model_flops, peak_tflops),
        optimizer=config.optimizer,
        logging=config.logging,
        checkpoint=config.checkpoint,
        train_iters=config.batch.train_iters,
        tokens_per_sample=architecture.tokens_per_row(row_rules(config, tokenizer)),
        seed=config.batch.seed,
        hooks=hooks,
        facts=facts,
        started=started,
        saver=saver,
        contents_at=contents_at,
        stop_signal=stop_signal,
        progress=start.progress,
        say=say,
    )


def _split(config: RunConfig, tokenizer: Tokenizer) -> str:
    """How many layers each part of a pipeline holds, in the order in which a token passes them."""
    recipe = model_recipe(config, tokenizer.vocabulary_size)
    layers = recipe.layers_of_chunks(config.layout)
    return f" (layers {' + '.join(map(str, layers))})" if len(layers) > 1 else ""


def speaker(grid: Grid) -> Callable[[str], None]:
    """Prints lines on rank 0, past a progress bar where there is one; the other ranks are silent."""

    def say(line: str) -> None:
        if grid.is_main:
            tqdm.write(line, file=sys.stderr)

    return say


def build_model(
    config: RunConfig, tokenizer: Tokenizer, grid: Grid, device: Device, attend: AttentionBackend
) -> TrainableModel:
    """The model of this rank with initial weights, gradient buffers and optimizer."""
    recipe = model_recipe(config, tokenizer.vocabulary_size)
    dtype = compute_dtype(config.optimizer)
    core_config, chunks = build_chunks(recipe, config.layout, grid, device, dtype, attend)
    tokens_per_row = recipe.architecture.tokens_per_row(row_rules(config, tokenizer))
    microbatch_tokens = config.batch.micro_batch_size * tokens_per_row
    return make_trainable(core_config, chunks, config.layout, config.optimizer, microbatch_tokens=microbatch_tokens)


def _saver(config: RunConfig, model: TrainableModel, grid: Grid, say: Callable[[str], None]) -> Saver | None:
    if not config.checkpoint.save:
        return None
    run_folder = Path(config.checkpoint.save)
    require_space(run_folder, model, grid)
    return Saver(config.checkpoint, run_folder, model, grid, say)


def _contents(
    config: RunConfig, tokenizer: Tokenizer, model: TrainableModel, start: StartingPoint
) -> Callable[[Progress], Contents]:
    def contents_at(progress: Progress) -> Contents:
        return Contents(
            progress=progress,
            run=config.as_dict(),
            tokenizer=tokenizer_record(tokenizer),
            lineage=lineage_after(start.earlier_lineage, config, progress),
            optimizer=scalar_optimizer_state(model.inner_optimizer),
        )

    return contents_at
