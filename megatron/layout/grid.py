"""The process groups of a run: the one place that reads megatron-core's parallel_state."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import ProcessGroup

from megatron.basics.errors import UserError
from megatron.device.device import Device
from megatron.layout.options import LayoutOptions


@dataclass(frozen=True)
class Grid:
    """Where this process stands: sizes and ranks along tensor, pipeline and data parallelism, and their groups."""

    rank: int
    world_size: int
    tensor_rank: int
    tensor_size: int
    pipeline_rank: int
    pipeline_size: int
    data_rank: int
    data_size: int
    tensor_group: ProcessGroup
    pipeline_group: ProcessGroup
    data_group: ProcessGroup

    @property
    def is_main(self) -> bool:
        """Rank 0: the one that talks and writes."""
        return self.rank == 0

    @property
    def is_last_pipeline_rank(self) -> bool:
        """Whether the loss is computed here."""
        return self.pipeline_rank == self.pipeline_size - 1

    def describe(self) -> str:
        """`TP2 PP2 DP1` and so on."""
        return f"TP{self.tensor_size} PP{self.pipeline_size} DP{self.data_size}"


def initialise(options: LayoutOptions, device: Device) -> Grid:
    """Join the world that torchrun made (or a world of one, or the one that is joined already) and build all groups."""
    from megatron.core import parallel_state

    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
        os.environ.setdefault(name, value)
    world_size = int(os.environ["WORLD_SIZE"])
    if world_size % options.model_parallel_size:
        raise UserError(
            f"{world_size} processes cannot hold --tensor-model-parallel-size {options.tensor_model_parallel_size} x "
            f"--pipeline-model-parallel-size {options.pipeline_model_parallel_size}; start a multiple of "
            f"{options.model_parallel_size}."
        )
    timeout = timedelta(minutes=options.distributed_timeout_minutes)
    if dist.is_initialized():
        pass
    elif world_size == 1 and "MASTER_PORT" not in os.environ:
        dist.init_process_group(device.collective_backend, store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group(device.collective_backend, timeout=timeout)
    parallel_state.initialize_model_parallel(
        options.tensor_model_parallel_size,
        options.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=options.num_virtual_stages_per_pipeline_rank,
        distributed_timeout_minutes=options.distributed_timeout_minutes,
    )
    return current()


def current() -> Grid:
    """The grid of an initialised process."""
    from megatron.core import parallel_state as state

    return Grid(
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        tensor_rank=state.get_tensor_model_parallel_rank(),
        tensor_size=state.get_tensor_model_parallel_world_size(),
        pipeline_rank=state.get_pipeline_model_parallel_rank(),
        pipeline_size=state.get_pipeline_model_parallel_world_size(),
        data_rank=state.get_data_parallel_rank(),
        data_size=state.get_data_parallel_world_size(),
        tensor_group=state.get_tensor_model_parallel_group(),
        pipeline_group=state.get_pipeline_model_parallel_group(),
        data_group=state.get_data_parallel_group(),
    )


def wait_for_all() -> None:
    """Return when every rank is here: a rank that leaves early makes torchrun end those that still finish."""
    dist.barrier()


def shut_down() -> None:
    """Leave all groups; safe to call when none exist."""
    from megatron.core import parallel_state

    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()
