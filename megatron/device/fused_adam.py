"""AdamW for megatron-core where neither Transformer Engine nor Apex is installed.

megatron-core falls back to torch.optim.AdamW, which keeps one `step` for each parameter; its DistributedOptimizer then
cannot load its own checkpoint (it expects a single step). This class has the interface of Apex's FusedAdam: `step`
lives in the parameter group, `exp_avg` and `exp_avg_sq` in the state.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch


class FusedAdam(torch.optim.Optimizer):
    """Adam with decoupled (AdamW, the default) or coupled weight decay, one fused kernel call for each group.

    Matches torch.optim.AdamW to rounding. Source: Loshchilov and Hutter 2019, algorithm 2.
    """

    # torch wraps these to hide them from torch.compile, and each wrapper imports the whole compiler to do so: a second
    # of start-up for something that is not used here.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        adam_w_mode: bool = True,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._kernel = torch._fused_adamw_ if adam_w_mode else torch._fused_adam_

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply the gradients. A group's step count advances even where this rank holds none of its parameters."""
        assert closure is None, "megatron-core never passes a closure"
        for group in self.param_groups:
            # An empty group of this rank is another rank's full one, and all ranks must save the same count.
            group["step"] = group.get("step", 0) + 1
            params = [p for p in group["params"] if p.grad is not None and p.numel()]
            if params:
                self._update(group, params)

    def _update(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        for param in params:
            if "exp_avg" not in self.state[param]:
                self.state[param]["exp_avg"] = torch.zeros_like(param)
                self.state[param]["exp_avg_sq"] = torch.zeros_like(param)
        step = torch.tensor(float(group["step"]), device=params[0].device)
        self._kernel(
            params,
            [p.grad for p in params if p.grad is not None],
            [self.state[p]["exp_avg"] for p in params],
            [self.state[p]["exp_avg_sq"] for p in params],
            [],
            [step] * len(params),
            lr=float(group["lr"]),
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


def library_with_fused_adam() -> str | None:
    """`transformer_engine` or `apex` when megatron-core can take its FusedAdam from there, else None.

    The package called `apex` on the public index is an unrelated web toolkit; NVIDIA's has `apex.optimizers`.
    """
    for package, module in (("transformer_engine", "transformer_engine.pytorch"), ("apex", "apex.optimizers")):
        if importlib.util.find_spec(package) and importlib.util.find_spec(module):
            return package
    return None


def install_where_missing() -> None:
    """Put FusedAdam into megatron-core's optimizer modules unless Transformer Engine or Apex provide theirs."""
    import megatron.core.optimizer as factory
    import megatron.core.optimizer.distrib_optimizer as distributed

    if not factory.USING_PYTORCH_OPTIMIZER:
        return
    factory.Adam = distributed.Adam = FusedAdam
    factory.USING_PYTORCH_OPTIMIZER = False
    distributed.HAVE_APEX_OR_TE = distributed.USING_APEX_OPTIMIZER = True
