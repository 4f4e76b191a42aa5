"""Initial weights as a function of (seed, global name): every layout starts from the same model.

Each parameter is drawn whole from its own generator and then cut to this rank's shard. Names count layers through the
whole stack, so they do not depend on pipeline stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    set_tensor_model_parallel_attributes,
)
from torch import Tensor, nn

from megatron.basics.seeds import seed_for
from megatron.layout.grid import Grid
from megatron.layout.row_blocks import PADDING, RowBlocks, block_of_rows

WidthsOf = Callable[[str], Sequence[int] | None]
InitialStd = Callable[[str], float | tuple[float, ...] | None]
TIED_COPY, TIED_ORIGINAL = "output_layer.weight", "embedding.word_embeddings.weight"


def global_names(chunk: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """(name, parameter) with layer numbers of the whole stack in place of those of this chunk."""
    renames = {}
    in_whole_model: Callable[[str], str] = getattr(chunk, "global_name", str)
    for name, module in chunk.named_modules():
        parent, _, last = name.rpartition(".")
        if last.isdigit() and hasattr(module, "layer_number"):
            renames[name + "."] = f"{parent}.{module.layer_number - 1}."
    for name, parameter in chunk.named_parameters():
        for local, whole in renames.items():
            if name.startswith(local):
                name = whole + name.removeprefix(local)
                break
        yield in_whole_model(name), parameter


def mark_shards(chunk: nn.Module) -> None:
    """Note on each weight of megatron-core's parallel layers how it is cut; they do so only while initialising it."""
    cut_along = {ColumnParallelLinear: 0, RowParallelLinear: 1, VocabParallelEmbedding: 0}
    for module in chunk.modules():
        weight = getattr(module, "weight", None)
        for kind, dim in cut_along.items():
            if isinstance(module, kind) and weight is not None:
                set_tensor_model_parallel_attributes(weight, True, dim, 1)


def mark_row_blocks(chunk: nn.Module, grid: Grid, widths_of: WidthsOf, *, vocabulary_size: int, gated: bool) -> None:
    """Note on each parameter its RowBlocks, as `row_blocks`. The arguments are those of `draw_weights`."""
    for name, parameter in global_names(chunk):
        dim = 0 if shard_dim(parameter) == 0 else None
        rows = parameter.shape[0] * (grid.tensor_size if dim == 0 else 1)
        numbers = block_of_rows(widths_of(name) or (rows,), rows)
        if holds_vocabulary(name):
            numbers[vocabulary_size:] = PADDING
        sizes = tuple(torch.bincount(numbers[numbers != PADDING]).tolist())
        local = shard(numbers, dim, grid, halves=gated and "linear_fc1" in name)
        parameter.row_blocks = RowBlocks(local.to(parameter.device), sizes)  # type: ignore[attr-defined]


@torch.no_grad()
def draw_weights(
    chunk: nn.Module,
    grid: Grid,
    seed: int,
    initial_std: InitialStd,
    widths_of: WidthsOf,
    *,
    vocabulary_size: int,
    gated: bool,
    tied: bool,
    norm_weight: float = 1.0,
) -> None:
    """Fill every parameter of a chunk.

    initial_std(name) is the standard deviation of a matrix's normal draw, or one for each of the projections that the
    matrix stacks, whose rows take turns in the widths of widths_of(name) (see `block_of_rows`; None: it is a single
    one). Vectors become `norm_weight` or, where they are biases, zero. Rows of embeddings beyond `vocabulary_size` are
    zero, so padding does not change what is drawn.
    gated: the first feed-forward matrix stacks gate and up projection, which are sharded one by one.
    """
    for name, parameter in global_names(chunk):
        if tied and name == TIED_COPY:
            name = TIED_ORIGINAL
        if parameter.dim() == 1:
            parameter.fill_(0.0 if name.endswith("bias") else norm_weight)
            continue
        dim = shard_dim(parameter)
        shape = list(parameter.shape)
        if dim is not None:
            shape[dim] *= grid.tensor_size
        whole = torch.empty(shape, dtype=torch.float32)
        generator = torch.Generator().manual_seed(seed_for(seed, "weights", name))
        std = initial_std(name)
        if std is None:
            whole.zero_()
        elif isinstance(std, tuple):
            blocks = block_of_rows(widths_of(name) or shape[:1], shape[0])
            whole.normal_(generator=generator).mul_(torch.tensor(std)[blocks, None])
        elif holds_vocabulary(name):
            whole.zero_()[:vocabulary_size].normal_(0.0, std, generator=generator)
        else:
            whole.normal_(0.0, std, generator=generator)
        parameter.copy_(shard(whole, dim, grid, halves=gated and "linear_fc1" in name))


def holds_vocabulary(name: str) -> bool:
    """Whether a parameter has a row for each word."""
    return "word_embeddings" in name or name == TIED_COPY


def shard_dim(parameter: nn.Parameter) -> int | None:
    """The dimension along which tensor parallelism cuts a parameter, or None where all ranks hold it whole."""
    return getattr(parameter, "partition_dim") if getattr(parameter, "tensor_model_parallel", False) else None  # noqa: B009


def shard(whole: Tensor, dim: int | None, grid: Grid, *, halves: bool = False) -> Tensor:
    """This rank's part of a whole parameter; with `halves`, of each half by itself."""
    if dim is None or grid.tensor_size == 1:
        return whole
    parts = whole.chunk(2, dim) if halves else (whole,)
    return torch.cat([part.chunk(grid.tensor_size, dim)[grid.tensor_rank] for part in parts], dim)
