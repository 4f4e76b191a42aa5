"""One training step through megatron-core's pipeline schedule."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from torch import Tensor, nn

from megatron.architectures.protocol import Architecture
from megatron.basics.seeds import seed_for
from megatron.device.device import Device
from megatron.layout.grid import Grid
from megatron.layout.initial_weights import global_names
from megatron.loop.setup import TrainableModel
from megatron.records.batch import Batch

Z_LOSS = "z loss"


@dataclass(frozen=True, kw_only=True)
class LossRule:
    """How outputs become losses: the architecture's own rule with this run's settings.

    loss_names: what is reported, in order. z-loss is trained on with the first loss and reported beside it.
    """

    architecture: Architecture
    vocabulary_size: int
    z_loss_coeff: float = 0.0

    @property
    def loss_names(self) -> tuple[str, ...]:
        """The names of the figures of a micro-batch."""
        return (*self.architecture.loss_names, *((Z_LOSS,) if self.z_loss_coeff else ()))


@dataclass(frozen=True)
class StepResult:
    """losses: (sum, count) by name over the whole step. votes: how many ranks asked for each of `asks`.

    overflow: a float16 gradient overflowed and the step was not applied. nonfinite: name of the loss or parameter that
    was not finite, and the step was not applied. loss_scale: the one this step used, None without float16.
    """

    losses: dict[str, tuple[float, float]]
    grad_norm: float
    overflow: bool
    nonfinite: str | None
    loss_scale: float | None
    votes: list[bool]

    @property
    def loss_tokens(self) -> int:
        """Target tokens of the step."""
        return round(next(iter(self.losses.values()))[1])


@dataclass(frozen=True)
class Microbatches:
    """The micro-batches of a step on this rank, each made when the schedule comes to it."""

    batches: Iterable[Batch]
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def run_schedule(
    chunks: Sequence[nn.Module],
    batches: Sequence[Batch] | Microbatches,
    rule: LossRule,
    grid: Grid,
    *,
    forward_only: bool,
) -> list[Tensor]:
    """Send micro-batches through the pipeline: on the last stage one float64 [losses, 2] of (sum, count) for each.

    All stages take the same micro-batches in the same order; interleaved chunks each walk through them by themselves.
    """
    (rows, length), iterators = _walks(iter(batches), len(chunks))
    return get_forward_backward_func()(
        forward_step_func=partial(_forward_step, rule, grid),
        data_iterator=iterators if len(chunks) > 1 else iterators[0],
        model=list(chunks) if len(chunks) > 1 else chunks[0],
        num_microbatches=len(batches),
        seq_length=length,
        micro_batch_size=rows,
        forward_only=forward_only,
    )


def train_step(
    model: TrainableModel,
    batches: Sequence[Batch] | Microbatches,
    rule: LossRule,
    grid: Grid,
    device: Device,
    *,
    dropout_seed: int,
    learning_rate: float,
    asks: Callable[[], Sequence[bool]] = tuple,
) -> StepResult:
    """Forward, backward, reduce and, if everything is finite on every rank, apply.

    asks: wishes of this rank (stop, save ...), read when the computation is over, and agreed on by all ranks in the
    reduction that carries the losses anyway.
    """
    for chunk in model.chunks:
        chunk.zero_grad_buffer()
    model.optimizer.zero_grad()
    for group in model.optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_mult"]
        group["weight_decay"] = model.optimizer.config.weight_decay * group["wd_mult"]
    seed_dropout(dropout_seed, grid)
    scaler = model.inner_optimizer.grad_scaler
    loss_scale = float(scaler.scale) if scaler else None
    outputs = run_schedule(model.chunks, batches, rule, grid, forward_only=False)
    config = model.optimizer.config
    overflow = model.optimizer.prepare_grads()
    # The norm makes the host wait for the device: what a person asks for until then is heard in this step.
    grad_norm = math.nan if overflow else float(model.optimizer.get_grad_norm())
    losses, votes = reduce_losses(outputs, rule.loss_names, asks(), grid, device)
    nonfinite = next((name for name, (total, _) in losses.items() if not math.isfinite(total)), None)
    if nonfinite is None and not overflow and not math.isfinite(grad_norm):
        nonfinite = _first_nonfinite_parameter(model, grid)
    if nonfinite is None and overflow and loss_scale is not None and loss_scale <= config.min_loss_scale:
        nonfinite = _first_nonfinite_parameter(model, grid)  # no smaller scale is left that could mend it
    if nonfinite is None and not overflow:
        _apply(model, grad_norm)
    return StepResult(losses, grad_norm, overflow and nonfinite is None, nonfinite, loss_scale, votes)


def reduce_losses(
    outputs: Sequence[Tensor], names: Sequence[str], asks: Sequence[bool], grid: Grid, device: Device
) -> tuple[dict[str, tuple[float, float]], list[bool]]:
    """(sum, count) of each loss over all micro-batches and ranks, and which wishes any rank has; one collective."""
    figures = torch.zeros(2 * len(names) + len(asks), dtype=torch.float64, device=device.torch_device)
    if outputs and grid.tensor_rank == 0:  # tensor-parallel ranks hold equal losses: count them once
        figures[: 2 * len(names)] = torch.stack(list(outputs)).sum(dim=0).flatten()
    for number, ask in enumerate(asks):
        figures[2 * len(names) + number] = float(ask)
    dist.all_reduce(figures)
    values = figures.tolist()
    losses = {name: (values[2 * i], values[2 * i + 1]) for i, name in enumerate(names)}
    return losses, [value > 0 for value in values[2 * len(names) :]]


def seed_dropout(seed: int, grid: Grid) -> None:
    """Dropout is a function of (seed, place in the grid): a resumed run needs no saved generator states.

    Tensor-parallel ranks share the generator outside of sharded regions and differ inside, as megatron-core asks.
    """
    place = seed_for(seed, "dropout", grid.pipeline_rank, grid.data_rank)
    model_parallel_cuda_manual_seed(place % 2**31)


def _walks(batches: Iterator[Batch], count: int) -> tuple[tuple[int, int], list[Iterator[Batch]]]:
    """Rows and stream length of the first batch, and `count` ways through all; each lives until the last took it."""
    ahead: list[deque[Batch]] = [deque() for _ in range(count)]

    def fetch() -> tuple[int, int]:
        batch = next(batches)
        for own in ahead:
            own.append(batch)
        return len(batch.tokens), batch.stream_length

    def walk(own: deque[Batch]) -> Iterator[Batch]:
        while True:
            if not own:
                fetch()
            yield own.popleft()

    return fetch(), [walk(own) for own in ahead]


def _forward_step(rule: LossRule, grid: Grid, batches: Iterator[Batch], chunk: nn.Module) -> tuple[Tensor, object]:
    batch = next(batches)
    # Masks and blocks are kept with the visibility: with this one they go when the micro-batch goes.
    batch = batch.map(lambda tensor: tensor)
    return chunk(batch), partial(_sum_losses, rule, grid, batch)


def _sum_losses(rule: LossRule, grid: Grid, batch: Batch, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    losses = rule.architecture.losses(
        outputs, batch, grid, vocabulary_size=rule.vocabulary_size, z_loss_coeff=rule.z_loss_coeff
    )
    trained = losses[rule.architecture.loss_names[0]]
    figures = torch.stack(
        [torch.stack([loss.total.detach().double(), loss.count.double()]) for loss in losses.values()]
    )
    if trained.z_loss is not None:
        z_loss = torch.stack([trained.z_loss.double(), trained.count.double()])
        figures[0, 0] -= z_loss[0]
        figures = torch.cat([figures, z_loss[None]])
    return trained.total, trained.count, figures


@torch.no_grad()
def _apply(model: TrainableModel, grad_norm: float) -> None:
    clip = model.optimizer.config.clip_grad
    if clip > 0.0:
        for optimizer in model.optimizer.chained_optimizers:
            parameters = optimizer.get_parameters()
            if parameters:
                clip_grad_by_total_norm_fp32(parameters, max_norm=clip, total_norm=grad_norm)
    model.optimizer.step_with_ready_grads()


def _first_nonfinite_parameter(model: TrainableModel, grid: Grid) -> str:
    """Global name of a parameter whose gradient is not finite: the lowest rank's first."""
    mine = None
    for chunk in model.chunks:
        for name, parameter in global_names(chunk.module):
            gradient = getattr(parameter, "main_grad", None)
            if mine is None and gradient is not None and not torch.isfinite(gradient).all():
                mine = f"gradient of {name} (rank {grid.rank})"
    found: list[str | None] = [None] * grid.world_size
    dist.all_gather_object(found, mine)
    return next((name for name in found if name), "gradient norm")
