"""Which layers live on which pipeline stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from megatron.layout.options import LayoutOptions


@dataclass(frozen=True)
class Stage:
    """One model chunk: layers [first_layer, first_layer + num_layers) of the stack, and what stands around them."""

    pipeline_rank: int
    virtual_rank: int
    first_layer: int
    num_layers: int
    holds_embedding: bool
    holds_head: bool


def stages_of(options: LayoutOptions, layers_of_chunks: Sequence[int]) -> list[Stage]:
    """All chunks in the order in which a token passes them; `layers_of_chunks` in the same order.

    Megatron's interleaving: chunk c of rank r comes after chunk c of rank r - 1, and chunk c + 1 of rank 0 after chunk
    c of the last rank (Narayanan et al. 2021, section 2.2).
    """
    ranks, last = options.pipeline_model_parallel_size, len(layers_of_chunks) - 1
    return [
        Stage(
            pipeline_rank=number % ranks,
            virtual_rank=number // ranks,
            first_layer=end - count,
            num_layers=count,
            holds_embedding=number == 0,
            holds_head=number == last,
        )
        for number, (count, end) in enumerate(zip(layers_of_chunks, accumulate(layers_of_chunks), strict=True))
    ]


def even_chunks(options: LayoutOptions, num_layers: int) -> list[int]:
    """Layers of each chunk where all layers cost the same: even, but for counts that are given for the ends."""
    chunks = options.num_virtual_stages_per_pipeline_rank or 1
    return [count // chunks for _ in range(chunks) for count in layers_per_rank(options, num_layers)]


def layers_per_rank(options: LayoutOptions, num_layers: int) -> list[int]:
    """Layers of each pipeline rank: even, but for the first and last rank where their counts are given."""
    ranks = options.pipeline_model_parallel_size
    counts: list[int | None] = [None] * ranks
    counts[0] = options.decoder_first_pipeline_num_layers
    counts[-1] = options.decoder_last_pipeline_num_layers or counts[-1]
    fixed = sum(count for count in counts if count is not None)
    free = counts.count(None)
    return [count if count is not None else (num_layers - fixed) // free for count in counts]


def balanced_chunks(options: LayoutOptions, costs: Sequence[float], head_cost: float = 0.0) -> list[int]:
    """Layers of each chunk where they differ: the split whose dearest chunk is cheapest, and of such splits the most
    even one, whose chunks have the least sum of squares.

    costs: of each layer, in order. head_cost: of what the last chunk holds besides. Every chunk gets a layer; there
    must be as many.
    """
    chunks = options.pipeline_model_parallel_size * (options.num_virtual_stages_per_pipeline_rank or 1)
    before = [0.0, *accumulate(costs)]
    num_layers = len(costs)
    head_costs = [0.0] * (chunks - 1) + [head_cost]
    ends_of_chunks = [range(chunk + 1, num_layers - (chunks - chunk - 1) + 1) for chunk in range(chunks)]
    # least[end]: cost of the dearest chunk among those that hold the layers before `end`
    least = {0: 0.0}
    for extra, ends in zip(head_costs, ends_of_chunks, strict=True):
        least = {
            end: min(
                max(dearest, before[end] - before[start] + extra) for start, dearest in least.items() if start < end
            )
            for end in ends
        }
    # best[end]: (sum of squares, layers of each chunk), of chunks that are all within the limit
    limit = least[num_layers]
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
    for extra, ends in zip(head_costs, ends_of_chunks, strict=True):
        splits = {
            end: [
                (squares + cost**2, [*counts, end - start])
                for start, (squares, counts) in best.items()
                if start < end and (cost := before[end] - before[start] + extra) <= limit
            ]
            for end in ends
        }
        best = {end: min(of_end) for end, of_end in splits.items() if of_end}
    return best[num_layers][1]
