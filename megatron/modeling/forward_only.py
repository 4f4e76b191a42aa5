"""When a layer may leave out what only training needs."""

from __future__ import annotations

import torch
from torch import nn


def is_forward_only(module: nn.Module) -> bool:
    """No gradient will be asked for and nothing is dropped, as when a model is scored or writes.

    megatron-core's layers then still pass through autograd functions, look up groups and open scopes for profilers. In
    a pass over one new token a text these cost more than the products, so our layers go around them, by the same
    operations in the same order: the numbers are those of training to the last bit.
    """
    return not (module.training or torch.is_grad_enabled())
