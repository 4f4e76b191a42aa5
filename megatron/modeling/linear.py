"""megatron-core's linear layers, cut over tensor-parallel ranks, with a short way for passes without gradients."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from megatron.core.tensor_parallel import reduce_from_tensor_model_parallel_region
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from torch import Tensor

from megatron.modeling.forward_only import is_forward_only


class ColumnLinear(ColumnParallelLinear):
    """[s, b, h] -> ([s, b, this rank's outputs], the bias that is still to be added, or None); outputs stay cut."""

    def forward(
        self, input_: Tensor, weight: Tensor | None = None, runtime_gather_output: bool | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`weight` replaces the layer's own."""
        if not is_forward_only(self) or self.sequence_parallel:
            return super().forward(input_, weight, runtime_gather_output)
        assert not (self.gather_output or runtime_gather_output), "outputs stay cut"
        output = F.linear(input_, self.weight if weight is None else weight)
        if self.skip_bias_add or self.bias is None:
            return output, self.bias
        return output.add_(self.bias), None


class RowLinear(RowParallelLinear):
    """[s, b, this rank's inputs] -> ([s, b, h], the bias that is still to be added, or None)."""

    def forward(self, input_: Tensor, *arguments: Any) -> tuple[Tensor, Tensor | None]:
        """The sum over the tensor-parallel ranks."""
        if not is_forward_only(self) or self.sequence_parallel:
            return super().forward(input_, *arguments)
        assert self.input_is_parallel, "inputs come cut"
        output = F.linear(input_, self.weight)
        if self.tp_group.size() > 1:
            output = reduce_from_tensor_model_parallel_region(output, group=self.tp_group)
        if self.skip_bias_add or self.bias is None:
            return output, self.bias
        return output.add_(self.bias), None
