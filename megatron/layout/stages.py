"""Which layers live on which pipeline stage."""

from __future__ import annotations

from dataclasses import dataclass

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


def stages_of(options: LayoutOptions, num_layers: int) -> list[Stage]:
    """All chunks in the order in which a token passes them.

    Megatron's interleaving: chunk c of rank r comes after chunk c of rank r - 1, and chunk c + 1 of rank 0 after chunk
    c of the last rank (Narayanan et al. 2021, section 2.2).
    """
    ranks = options.pipeline_model_parallel_size
    chunks = options.num_virtual_stages_per_pipeline_rank or 1
    per_rank = layers_per_rank(options, num_layers)
    stages, first_layer = [], 0
    for virtual_rank in range(chunks):
        for rank in range(ranks):
            count = per_rank[rank] // chunks
            stages.append(
                Stage(
                    pipeline_rank=rank,
                    virtual_rank=virtual_rank,
                    first_layer=first_layer,
                    num_layers=count,
                    holds_embedding=first_layer == 0,
                    holds_head=rank == ranks - 1 and virtual_rank == chunks - 1,
                )
            )
            first_layer += count
    return stages


def layers_per_rank(options: LayoutOptions, num_layers: int) -> list[int]:
    """Layers of each pipeline rank: even, but for the first and last rank where their counts are given."""
    ranks = options.pipeline_model_parallel_size
    counts: list[int | None] = [None] * ranks
    counts[0] = options.decoder_first_pipeline_num_layers
    counts[-1] = options.decoder_last_pipeline_num_layers or counts[-1]
    fixed = sum(count for count in counts if count is not None)
    free = counts.count(None)
    return [count if count is not None else (num_layers - fixed) // free for count in counts]
