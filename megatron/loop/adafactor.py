"""Adafactor as T5 and the study of Wang et al. 2022 used it, on matrices that tensor parallelism has cut."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from megatron.layout.row_blocks import PADDING, RowBlocks

SMALLEST_FACTORED_DIM = 128
ROWS, COLUMNS, WHOLE = "exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_sq"


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A parameter and how it stands in the whole one.

    weight: float32, on this rank. blocks: which of its rows are one matrix to the optimizer. cut: the dimension that
    tensor parallelism cuts, or None. columns: of the whole. can_factor: False for tables of relative positions.
    """

    weight: Tensor
    blocks: RowBlocks
    cut: int | None
    columns: int
    can_factor: bool = True

    @property
    def is_factored(self) -> bool:
        """Whether vectors of rows and columns stand for the second moment; a matter of the whole matrix, whatever the
        layout, and of all its blocks: checkpoints hold one kind of state for a parameter."""
        sides = (*self.blocks.sizes, self.columns)
        return self.can_factor and self.weight.dim() == 2 and min(sides) >= SMALLEST_FACTORED_DIM


class Adafactor(torch.optim.Optimizer):
    """Adafactor without first moment, with a relative step size and update clipping, and no weight decay.

    At step t, for a matrix W [n, m] with gradient G, b = 1 - t^-0.8, and everything squared and averaged in float32:

        R = b R + (1 - b) mean of (G^2 + eps1) over columns          C = b C + (1 - b) mean of the same over rows
        U = G / sqrt(R C / mean(R))                                  W -= lr max(eps2, RMS(W)) U / max(1, RMS(U) / d)

    Vectors, and matrices with a side below 128, keep V for their elements in place of R and C. Each projection in a
    stacked matrix is a matrix by itself, but V is kept for all of them if one has a side below 128. Means are over the
    whole matrix, so that the step does not depend on the layout. Source: Shazeer and Stern 2018, algorithms 4 and 5;
    constants of T5X. Gradients are used up by a step.
    """

    # Without the wrappers that hide these from torch.compile: see FusedAdam.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)

    def __init__(
        self,
        placed: Sequence[Placed],
        lr: float,
        tensor_group: ProcessGroup | None = None,
        *,
        decay_exponent: float = 0.8,
        eps1: float = 1e-30,
        eps2: float = 1e-3,
        threshold: float = 1.0,
    ) -> None:
        super().__init__([one.weight for one in placed], {"lr": lr, "lr_mult": 1.0, "wd_mult": 0.0, "step": 0})
        self._tensor_group = tensor_group
        self._decay_exponent, self._eps1, self._eps2, self._threshold = decay_exponent, eps1, eps2, threshold
        self._matrices = [_Matrix(one, self.state[one.weight]) for one in placed]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply the gradients. A collective of the tensor-parallel ranks, which must agree on which gradients exist."""
        assert closure is None, "megatron-core never passes a closure"
        (group,) = self.param_groups
        group["step"] += 1
        decay = 1.0 - group["step"] ** -self._decay_exponent
        matrices = [matrix for matrix in self._matrices if matrix.weight.grad is not None]
        self._sum_shards(matrix.measure(self._eps1) for matrix in matrices)
        for matrix in matrices:
            matrix.update_moments(decay, self._eps1)
        self._sum_shards(matrix.measure_rows() for matrix in matrices)
        for matrix in matrices:
            matrix.normalise_gradient()
        self._sum_shards(matrix.measure_update() for matrix in matrices)
        for matrix in matrices:
            matrix.apply(float(group["lr"]), self._eps2, self._threshold)

    def _sum_shards(self, parts: Iterable[list[Tensor]]) -> None:
        """Add up over the tensor-parallel ranks, in place and in one collective."""
        tensors = [tensor for part in parts for tensor in part]
        if not tensors or self._tensor_group is None or dist.get_world_size(self._tensor_group) == 1:
            return
        joined = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(joined, group=self._tensor_group)
        for tensor, total in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))


class _Matrix:
    """One parameter through the phases of a step; vectors are matrices of one column.

    What a phase returns is what the ranks must add up before the next one.
    """

    def __init__(self, placed: Placed, state: dict[str, Any]) -> None:
        self.weight, self.placed, self.state = placed.weight, placed, state
        weight, numbers = placed.weight, placed.blocks.numbers
        self.sizes = torch.tensor(placed.blocks.sizes, dtype=torch.float32, device=weight.device)
        self.row_numbers = numbers.clamp(min=0)
        blocks = torch.arange(len(self.sizes), device=weight.device)
        self.members = ((numbers == blocks[:, None]) & (numbers != PADDING)).float()  # [blocks, rows]
        if placed.is_factored:
            rows, columns = weight.shape
            state[ROWS] = torch.zeros(rows, dtype=torch.float32, device=weight.device)
            state[COLUMNS] = torch.zeros(len(self.sizes), columns, dtype=torch.float32, device=weight.device)
        else:
            state[WHOLE] = torch.zeros_like(weight, dtype=torch.float32)

    @property
    def gradient(self) -> Tensor:
        assert self.weight.grad is not None
        return self.weight.grad

    def measure(self, eps1: float) -> list[Tensor]:
        self.weight_squares = self._block_sums(self.weight)
        cut = self.placed.cut
        parts = [] if cut is None else [self.weight_squares]
        if self.placed.is_factored:
            squares = self.gradient.square().add_(eps1)
            self.row_sums, self.column_sums = squares.sum(dim=1), self.members @ squares
            parts += [] if cut is None else [self.column_sums if cut == 0 else self.row_sums]
        return parts

    def update_moments(self, decay: float, eps1: float) -> None:
        if not self.placed.is_factored:
            self.state[WHOLE].mul_(decay).add_(self.gradient.square().add_(eps1), alpha=1.0 - decay)
            return
        self.state[ROWS].mul_(decay).add_(self.row_sums, alpha=(1.0 - decay) / self.placed.columns)
        self.state[COLUMNS].mul_(decay).add_(self.column_sums / self.sizes[:, None], alpha=1.0 - decay)
        del self.row_sums, self.column_sums

    def measure_rows(self) -> list[Tensor]:
        if not self.placed.is_factored:
            return []
        self.moment_sums = self.members @ self.state[ROWS]
        return [self.moment_sums] if self.placed.cut == 0 else []

    def normalise_gradient(self) -> None:
        if not self.placed.is_factored:
            self.gradient.mul_(self.state[WHOLE].rsqrt())
            return
        means = (self.moment_sums / self.sizes)[self.row_numbers]
        self.gradient.mul_((self.state[ROWS] / means).rsqrt_()[:, None])
        columns = self.state[COLUMNS].rsqrt()
        self.gradient.mul_(columns if len(columns) == 1 else columns[self.row_numbers])

    def measure_update(self) -> list[Tensor]:
        self.update_squares = self._block_sums(self.gradient)
        return [] if self.placed.cut is None else [self.update_squares]

    def apply(self, lr: float, eps2: float, threshold: float) -> None:
        counts = self.sizes * self.placed.columns
        step_size = lr * (self.weight_squares / counts).sqrt_().clamp_(min=eps2)
        step_size /= ((self.update_squares / counts).sqrt_() / threshold).clamp_(min=1.0)
        row_steps = step_size[self.row_numbers]
        self.weight.sub_(self.gradient.mul_(row_steps if self.weight.dim() == 1 else row_steps[:, None]))

    def _block_sums(self, tensor: Tensor) -> Tensor:
        """Sum of squares of each block, [blocks]."""
        squares = tensor.square()
        return self.members @ (squares if tensor.dim() == 1 else squares.sum(dim=1))
