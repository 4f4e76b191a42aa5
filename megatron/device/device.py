"""Which device this process computes on, and the few questions that only the device can answer."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron.basics.errors import UserError
from megatron.device import core_import


@dataclass(frozen=True)
class Device:
    """The device of this process: cpu, or one CUDA GPU chosen by LOCAL_RANK."""

    torch_device: torch.device

    @property
    def is_cuda(self) -> bool:
        """Whether this is an NVIDIA GPU."""
        return self.torch_device.type == "cuda"

    @property
    def collective_backend(self) -> str:
        """The torch.distributed backend."""
        return "nccl" if self.is_cuda else "gloo"

    @property
    def name(self) -> str:
        """What a person calls it, e.g. `NVIDIA H200` or `CPU (2 threads)`."""
        if self.is_cuda:
            return torch.cuda.get_device_name(self.torch_device)
        return f"CPU ({torch.get_num_threads()} threads)"

    def synchronize(self) -> None:
        """Wait for queued work, so that a clock read afterwards tells the truth."""
        if self.is_cuda:
            torch.cuda.synchronize(self.torch_device)

    def clock(self) -> float:
        """Seconds, after all queued work is done."""
        self.synchronize()
        return time.perf_counter()

    def peak_memory_bytes(self) -> int:
        """Most memory held so far: allocator peak on CUDA, resident set on CPU."""
        if self.is_cuda:
            return torch.cuda.max_memory_allocated(self.torch_device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def put(self, array: Tensor) -> Tensor:
        """A host tensor on this device, copied without waiting where the host memory is pinned."""
        if not self.is_cuda:
            return array
        return array.pin_memory().to(self.torch_device, non_blocking=True)


def choose_device(wish: str) -> Device:
    """The device of `--device auto|cpu|cuda` for this process.

    On CPU megatron-core is made to run through `device.cpu_emulation`; call this before importing megatron.core
    anywhere. Raises UserError when CUDA is asked for and no GPU (or not enough of them) is there.
    """
    has_cuda = torch.cuda.is_available()
    if wish == "cuda" and not has_cuda:
        raise UserError("--device cuda: no NVIDIA GPU is usable here; use --device cpu or leave the flag out.")
    core_import.import_megatron_core()
    if wish == "cpu" or not has_cuda:
        from megatron.device import cpu_emulation, cpu_tuning

        cpu_tuning.apply()
        cpu_emulation.install()
        return Device(torch.device("cpu"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"torchrun starts more processes on this node (LOCAL_RANK {local_rank}) than it has GPUs "
            f"({torch.cuda.device_count()}); lower --nproc-per-node."
        )
    from megatron.device import foreach_ops, fused_adam

    torch.cuda.set_device(local_rank)
    fused_adam.install_where_missing()
    foreach_ops.install_where_missing()
    return Device(torch.device("cuda", local_rank))


def require_supported_versions() -> None:
    """Refuse a megatron-core that was not tested, and a namespace that something else has taken."""
    import importlib.metadata

    import megatron

    if getattr(megatron, "__file__", None):
        raise UserError(
            f"{megatron.__file__} makes `megatron` a plain package and hides megatron.core; remove that file or "
            "uninstall the package that brought it."
        )
    try:
        version = importlib.metadata.version("megatron-core")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError("megatron-core is not installed; run `make setup`.") from error
    if not version.startswith("0.16."):
        raise UserError(f"megatron-core {version} was never tested with Triarch; install megatron-core==0.16.1.")
