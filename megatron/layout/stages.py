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
    """Layers of each chunk where they differ: the split whose dearest chunk is cheapest, then the most even such.

    costs: of each layer, in order. head_cost: of what the last chunk holds besides. Every chunk gets a layer; there
    must be as many.
    """
    chunks = options.pipeline_model_parallel_size * (options.num_virtual_stages_per_pipeline_rank or 1)
    before = [0.0, *accumulate(costs)]
    num_layers = len(costs)
    # best[end]: (dearest chunk, sum of squares, layers of each chunk) of the layers before `end` in so many chunks
    best: dict[int, tuple[float, float, list[int]]] = {0: (0.0, 0.0, [])}
    for chunk in range(chunks):
        extra = head_cost if chunk == chunks - 1 else 0.0
        ends = range(chunk + 1, num_layers - (chunks - chunk - 1) + 1)
        longer = {}
        for end in ends:
            longer[end] = min(
                (max(dearest, cost := before[end] - before[start] + extra), squares + cost**2, [*counts, end - start])
                for start, (dearest, squares, counts) in best.items()
                if start < end
            )
        best = longer
    return best[num_layers][2]
