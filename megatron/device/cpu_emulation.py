"""The patch points that let megatron-core 0.16 run on CPU with gloo. Nothing here runs when CUDA is used.

megatron-core asks torch.cuda for the current device, draws from "the CUDA generator", and writes device="cuda" in a few
places. Each patch below names its symbol and its reason; a patch whose symbol is gone stops the program, and
`unpatched_cuda_literals` lists modules of an installed megatron-core that hold a CUDA literal nobody looked at yet.
No TorchFunctionMode is used: it would tax every operation.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from megatron.device import foreach_ops, fused_adam

CUDA_LITERAL = re.compile(r"""device\s*=\s*['"]cuda|torch\.device\(\s*['"]cuda""")

# Modules with CUDA literals that a dense model reaches; in them alone `torch` is replaced by TorchOnCpu.
MODULES_WITH_CUDA_LITERALS = {
    "megatron.core.pipeline_parallel.schedules": "counts target tokens in a CUDA tensor",
    "megatron.core.optimizer.optimizer": "found_inf flag and unit loss scale",
    "megatron.core.optimizer.clip_grads": "accumulators of the gradient norm",
    "megatron.core.optimizer.grad_scaler": "loss scale and its growth factors",
    "megatron.core.transformer.utils": "default causal masks",
    "megatron.core.tensor_parallel.data": "sizes of broadcast batches",
    "megatron.core.dist_checkpointing.exchange_utils": "exchange of shards while loading",
    "megatron.core.dist_checkpointing.strategies.state_dict_saver": "check for a reusable plan",
    "megatron.core.utils": "norm and sharding helpers",
}

# Parts of megatron-core with CUDA literals that a dense model on CPU never executes.
NEVER_REACHED = (
    *("inference", "moe", "fp8_utils", "fsdp", "ssm", "fusions", "resharding", "cuda_graph", "nccl_allocator"),
    *("offload", "hybrid_cp", "energy_monitor", "rerun_state_machine", "tensor_parallel.random"),
    *("param_and_grad_buffer", "pipeline_parallel.utils", "mamba", "nvshmem"),
)

_FACTORIES = ("tensor", "zeros", "ones", "empty", "full", "arange", "zeros_like", "ones_like", "empty_like", "rand")
_CUDA_TYPE_NAMES = {
    torch.float32: "torch.cuda.FloatTensor",
    torch.float16: "torch.cuda.HalfTensor",
    torch.bfloat16: "torch.cuda.BFloat16Tensor",
}
_installed = False


def install() -> None:
    """Apply all patches; doing so twice does no harm. Must run before training code touches megatron.core."""
    global _installed
    if _installed:
        return
    _installed = True
    _answer_device_questions()
    _share_the_cpu_generator()
    for name in MODULES_WITH_CUDA_LITERALS:
        module = importlib.import_module(name)
        _replace(module, "torch", TorchOnCpu())
    _answer_type_questions_of_the_optimizer()
    _leave_out_collectives_of_one()
    fused_adam.install_where_missing()
    foreach_ops.install_where_missing()


class TorchOnCpu(types.ModuleType):
    """`torch` whose factory functions make CPU tensors where they are asked for CUDA ones."""

    def __init__(self) -> None:
        super().__init__("torch")
        for name in _FACTORIES:
            setattr(self, name, _on_cpu(getattr(torch, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def unpatched_cuda_literals() -> list[str]:
    """Modules of the installed megatron-core with CUDA literals that are neither patched nor known to be unreached."""
    import megatron.core

    root = Path(megatron.core.__path__[0])
    found = []
    for path in sorted(root.rglob("*.py")):
        name = "megatron.core." + ".".join(path.relative_to(root).with_suffix("").parts)
        code = "\n".join(line.split("#")[0] for line in path.read_text(encoding="utf-8").splitlines())
        known = name in MODULES_WITH_CUDA_LITERALS or any(part in name for part in NEVER_REACHED)
        if CUDA_LITERAL.search(code) and not known:
            found.append(name)
    return found


def _replace(owner: Any, name: str, value: Any) -> None:
    if not hasattr(owner, name):
        raise RuntimeError(f"{owner.__name__} has no {name}: this megatron-core or torch is not the tested one")
    setattr(owner, name, value)


def _on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
    def make(*args: Any, **kwargs: Any) -> Any:
        device = kwargs.get("device")
        if isinstance(device, int) or str(device).startswith("cuda"):
            kwargs["device"] = "cpu"
            kwargs.pop("pin_memory", None)
        return factory(*args, **kwargs)

    return make


def _answer_device_questions() -> None:
    """megatron-core places buffers on torch.cuda.current_device() and orders work by streams."""
    stream = _InertStream()
    answers = {
        "current_device": lambda: torch.device("cpu"),
        "synchronize": lambda *_, **__: None,
        "set_device": lambda *_, **__: None,
        "current_stream": lambda *_, **__: stream,
        "default_stream": lambda *_, **__: stream,
        "stream": lambda *_, **__: contextlib.nullcontext(),
    }
    for name, answer in answers.items():
        _replace(torch.cuda, name, answer)
    _replace(torch.Tensor, "cuda", lambda self, *_, **__: self)


class _InertStream:
    """A stream on which everything has already happened."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _share_the_cpu_generator() -> None:
    """Dropout on CPU draws from the default generator, so megatron-core's "CUDA" states must be that generator's."""
    import megatron.core.tensor_parallel.random as tracker

    def get_state(*_: Any, **__: Any) -> torch.Tensor:
        return torch.random.get_rng_state()

    def set_state(state: torch.Tensor, *_: Any, **__: Any) -> None:
        torch.random.set_rng_state(state)

    _replace(torch.cuda, "get_rng_state", get_state)
    _replace(torch.cuda, "set_rng_state", set_state)
    _replace(torch.cuda, "manual_seed", torch.manual_seed)
    _replace(tracker, "_get_cuda_rng_state", get_state)
    _replace(tracker, "_set_cuda_rng_state", set_state)
    # The tracker warns that the CPU generator moved inside a fork; here that is the very purpose of the fork.
    logging.getLogger(tracker.__name__).addFilter(lambda record: "CPU RNG state changed" not in record.getMessage())


def _answer_type_questions_of_the_optimizer() -> None:
    """The mixed-precision optimizers accept parameters by names such as 'torch.cuda.FloatTensor'."""
    real_type = torch.Tensor.type

    def type_name(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if not args and not kwargs and caller.startswith("megatron.core.optimizer"):
            return _CUDA_TYPE_NAMES.get(self.dtype) or real_type(self)
        return real_type(self, *args, **kwargs)

    _replace(torch.Tensor, "type", type_name)


def _leave_out_collectives_of_one() -> None:
    """gloo copies the buffers of the distributed optimizer onto themselves where a group has one member."""
    module = importlib.import_module("megatron.core.distributed.param_and_grad_buffer")
    for name in ("dist_reduce_scatter_func", "dist_all_gather_func"):
        _replace(module, name, _unless_alone(getattr(module, name)))


def _unless_alone(collective: Callable[..., Any]) -> Callable[..., Any]:
    def call(output: torch.Tensor, given: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if kwargs["group"].size() == 1 and output.data_ptr() == given.data_ptr():
            return None
        return collective(output, given, *args, **kwargs)

    return call
