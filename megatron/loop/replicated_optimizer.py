"""Optimizers with statistics of whole matrices under megatron-core's training step: each rank steps all its weights.

megatron-core's distributed optimizer gives a data-parallel rank a flat range of the parameters, in which rows and
columns are not to be found. Here data-parallel ranks sum their gradients and all take the same step, which costs master
weights on each of them (none with float32, whose weights are their own) and next to nothing for factored moments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from megatron.core.optimizer.grad_scaler import MegatronGradScaler
from megatron.core.optimizer.optimizer import MixedPrecisionOptimizer
from megatron.core.optimizer.optimizer_config import OptimizerConfig
from megatron.core.tensor_parallel import copy_tensor_model_parallel_attributes
from torch import Tensor, nn


class ReplicatedOptimizer(MixedPrecisionOptimizer):
    """megatron-core's reductions, loss scale and gradient norm around an optimizer of float32 master weights.

    parameters: of this rank, with gradient buffers. build(masters) makes the inner optimizer with one parameter group;
    a master is the parameter itself where that is float32.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        build: Callable[[list[Tensor]], torch.optim.Optimizer],
        config: OptimizerConfig,
        grad_scaler: MegatronGradScaler | None,
    ) -> None:
        self.masters = {parameter: _master_of(parameter) for parameter in parameters}
        optimizer = build(list(self.masters.values()))
        super().__init__(optimizer, config, grad_scaler, lambda optimizer, config: None)
        self.is_stub_optimizer = False

    def states_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Master weight, as `param`, and moments by name."""
        master = self.masters[parameter]
        return {"param": master.detach(), **self.optimizer.state[master]}

    def copy_masters_to_weights(self) -> None:
        """Give the model the rounded master weights."""
        self._copy_main_params_to_model_params()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; the buffers that megatron-core sums them in are zeroed by their owners."""
        for parameter, master in self.masters.items():
            parameter.grad = master.grad = None

    def _copy_model_grads_to_main_grads(self) -> None:
        for parameter, master in self.masters.items():
            parameter.grad = None
            master.grad = parameter.main_grad.float()  # type: ignore[attr-defined]

    def _collect_main_grad_data_for_unscaling(self) -> list[Tensor]:
        return [master.grad for master in self.masters.values() if master.grad is not None]

    @torch.no_grad()
    def _copy_main_params_to_model_params(self) -> None:
        for parameter, master in self.masters.items():
            if master is not parameter:
                parameter.copy_(master)

    @torch.no_grad()
    def _copy_model_params_to_main_params(self, state_dict: None = None) -> None:
        for parameter, master in self.masters.items():
            if master is not parameter:
                master.copy_(parameter)

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's; checkpoints are made of `states_of`."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.optimizer.load_state_dict(state_dict)

    def sharded_state_dict(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """megatron-core's way of saving, which is not used: see `checkpoint.replicated_boxes`."""
        raise NotImplementedError("checkpoints are made of states_of()")


def _master_of(parameter: nn.Parameter) -> Tensor:
    if parameter.dtype == torch.float32:
        return parameter
    master = parameter.detach().clone().float()
    # What the gradient norm asks for: which parameters are cut, and which are copies of another stage's.
    copy_tensor_model_parallel_attributes(master, parameter)
    if hasattr(parameter, "shared"):
        master.shared = parameter.shared  # type: ignore[attr-defined]
    return master
