"""Plans as text for people and as JSON for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from megatron.architectures.flops import VisiblePairs, flops_per_token
from megatron.architectures.shapes import ModelShape
from megatron.architectures.weights import count_parameters
from megatron.cli.plan_search import Impossible, Plan
from megatron.layout.options import LayoutOptions
from megatron.loop.memory_estimate import memory_of_rank
from megatron.loop.traffic import DATA, EMBEDDING, PIPELINE, TENSOR, transfers_of_rank

GB = 1e9
LINKS = (TENSOR, PIPELINE, DATA, EMBEDDING)
HEADINGS = (
    *("TP", "PP", "VPP", "DP", "SP", "recompute", "micro", "step s", "MFU %", "bubble %"),
    *("GB", "weights", "grads", "optim", "acts"),
    *("GB sent: TP", "PP", "DP", "embed"),
)
PARTS = ("weights", "gradients", "optimizer", "activations")


def describe_model(shape: ModelShape, pairs: VisiblePairs) -> Iterator[str]:
    """Parameters and FLOPs, which no layout changes."""
    count = count_parameters(shape)
    yield f"parameters        {count.total:,} ({count.non_embedding:,} without embeddings)"
    flops = flops_per_token(shape, pairs)
    yield f"FLOPs per token   {flops:.4g} forward and backward, {shape.stream_length:,} tokens a row"


def describe_plans(plans: Sequence[Plan], top: int) -> Iterator[str]:
    """A table, best first."""
    shown = plans[:top] if top else plans
    rows = [HEADINGS, *(_row(plan) for plan in shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        yield "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
    if len(shown) < len(plans):
        yield f"and {len(plans) - len(shown)} more; --top 0 lists all."


def describe_plan(plan: Plan) -> Iterator[str]:
    """One layout in detail: time by part, then memory and traffic of each pipeline rank."""
    time = plan.time
    name = _name(plan.size.layout, plan.size.data_parallel_size)
    yield f"layout            {name}, {plan.size.microbatches} micro-batches"
    yield f"step              {time.total:.4g} s, MFU {100 * plan.mfu:.1f} %"
    yield (
        f"  of which        compute {time.compute:.4g}, bubble {time.bubble:.4g}, tensor {time.tensor:.4g}, "
        f"pipeline {time.pipeline:.4g}, data {time.data:.4g}"
    )
    for rank in range(plan.size.layout.pipeline_model_parallel_size):
        memory = memory_of_rank(plan.size, rank)
        layers = " + ".join(str(stage.num_layers) for stage in plan.size.chunks_of(rank))
        yield f"pipeline rank {rank}   layers {layers}, {plan.size.parameters_of_rank(rank):,} parameters a device"
        parts = ", ".join(f"{part} {getattr(memory, part) / GB:.3g}" for part in PARTS)
        yield f"  memory GB       {memory.total / GB:.3g}: {parts}"
        for transfer in transfers_of_rank(plan.size, rank):
            name = f"{transfer.group} {transfer.operation}"
            yield f"  {name:26}{transfer.payload:>20,} bytes, {transfer.sent:,} sent round a ring"


def as_json(
    shape: ModelShape, pairs: VisiblePairs, plans: Sequence[Plan], impossible: Sequence[Impossible]
) -> dict[str, Any]:
    """Everything: what fits, best first, and what does not, each with its sentence."""
    count = count_parameters(shape)
    return {
        "parameters": count.total,
        "non_embedding_parameters": count.non_embedding,
        "flops_per_token": flops_per_token(shape, pairs),
        "tokens_per_row": shape.stream_length,
        "plans": [_plan_as_json(plan) for plan in plans if plan.why_not is None],
        "infeasible": [
            *(
                _layout_as_json(plan.size.layout, plan.size.batch.micro_batch_size) | {"why": plan.why_not}
                for plan in plans
                if plan.why_not is not None
            ),
            *(_layout_as_json(one.layout, one.micro_batch_size) | {"why": one.why_not} for one in impossible),
        ],
    }


def _row(plan: Plan) -> tuple[str, ...]:
    layout, sent = plan.size.layout, _sent(plan)
    return (
        str(layout.tensor_model_parallel_size),
        str(layout.pipeline_model_parallel_size),
        str(layout.num_virtual_stages_per_pipeline_rank or "-"),
        str(plan.size.data_parallel_size),
        "yes" if layout.sequence_parallel else "-",
        layout.recompute_granularity or "-",
        str(plan.size.batch.micro_batch_size),
        f"{plan.time.total:.3g}",
        f"{100 * plan.mfu:.1f}",
        f"{100 * plan.time.bubble_share:.1f}",
        f"{plan.memory.total / GB:.1f}",
        *(f"{getattr(plan.memory, part) / GB:.1f}" for part in PARTS),
        *(f"{sent[group] / GB:.2f}" for group in LINKS),
    )


def _sent(plan: Plan) -> dict[str, int]:
    """Bytes that the device which sends most sends in each kind of group."""
    most = dict.fromkeys(LINKS, 0)
    for rank in range(plan.size.layout.pipeline_model_parallel_size):
        own = dict.fromkeys(LINKS, 0)
        for transfer in transfers_of_rank(plan.size, rank):
            if transfer.group in own:
                own[transfer.group] += transfer.sent
        most = {group: max(most[group], own[group]) for group in LINKS}
    return most


def _layout_as_json(layout: LayoutOptions, micro_batch_size: int) -> dict[str, Any]:
    return {
        "tensor_model_parallel_size": layout.tensor_model_parallel_size,
        "pipeline_model_parallel_size": layout.pipeline_model_parallel_size,
        "num_virtual_stages_per_pipeline_rank": layout.num_virtual_stages_per_pipeline_rank,
        "sequence_parallel": layout.sequence_parallel,
        "recompute_granularity": layout.recompute_granularity,
        "micro_batch_size": micro_batch_size,
    }


def _plan_as_json(plan: Plan) -> dict[str, Any]:
    ranks = range(plan.size.layout.pipeline_model_parallel_size)
    return {
        **_layout_as_json(plan.size.layout, plan.size.batch.micro_batch_size),
        "data_parallel_size": plan.size.data_parallel_size,
        "step_seconds": plan.time.total,
        "seconds": vars(plan.time),
        "mfu": plan.mfu,
        "bubble_share": plan.time.bubble_share,
        "memory_bytes": {**vars(plan.memory), "total": plan.memory.total},
        "transfers": [
            [vars(transfer) | {"sent": transfer.sent} for transfer in transfers_of_rank(plan.size, rank)]
            for rank in ranks
        ],
    }


def _name(layout: LayoutOptions, copies: int) -> str:
    chunks = layout.num_virtual_stages_per_pipeline_rank
    words = [
        f"TP{layout.tensor_model_parallel_size}",
        f"PP{layout.pipeline_model_parallel_size}",
        *([f"VPP{chunks}"] if chunks else []),
        f"DP{copies}",
        *(["SP"] if layout.sequence_parallel else []),
        *([f"recompute {layout.recompute_granularity}"] if layout.recompute_granularity else []),
    ]
    return " ".join(words)
