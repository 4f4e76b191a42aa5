"""Estimated time of a training step: a simple model, good for an order among layouts and not for promises.

A device computes at a fixed share of its peak and sends at a fixed rate, one after the other. Not in the model:
latencies, uneven micro-batches, memory-bound operations (norms, softmax, optimizer) and contention of links. Reductions
over copies hide behind the backward pass with --overlap-grad-reduce, gathers of weights behind the forward pass with
--overlap-param-gather.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron.architectures.flops import (
    FORWARD_AND_BACKWARD,
    MULTIPLY_AND_ADD,
    VisiblePairs,
    head_multiplications,
    layer_multiplications,
    score_multiplications,
)
from megatron.loop.traffic import ALL_GATHER, DATA, EMBEDDING, PIPELINE, TENSOR, transfers_of_rank
from megatron.loop.training_size import TrainingSize


@dataclass(frozen=True, kw_only=True)
class Machine:
    """flops: that a device reaches a second. Bandwidths: bytes a second that it sends, inside its node and beyond."""

    flops: float
    devices_per_node: int
    node_bandwidth: float
    network_bandwidth: float


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of a step on the slowest pipeline rank: computing, waiting in the pipeline, sending where it shows."""

    compute: float
    bubble: float
    tensor: float
    pipeline: float
    data: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.compute + self.bubble + self.tensor + self.pipeline + self.data

    @property
    def bubble_share(self) -> float:
        """Of the step."""
        return self.bubble / self.total


def estimate_step_time(size: TrainingSize, pairs: VisiblePairs, machine: Machine) -> StepTime:
    """The step of the slowest pipeline rank, which the others wait for."""
    times = (_time_of_rank(size, pairs, machine, rank) for rank in size.different_ranks)
    return max(times, key=lambda time: time.total)


def _time_of_rank(size: TrainingSize, pairs: VisiblePairs, machine: Machine, rank: int) -> StepTime:
    sent: dict[str, float] = {}
    gathered = 0.0
    for transfer in transfers_of_rank(size, rank):
        seconds = transfer.sent / _bandwidth(size, machine, transfer.group)
        sent[transfer.group] = sent.get(transfer.group, 0.0) + seconds
        if transfer.group == DATA and transfer.operation == ALL_GATHER:
            gathered = seconds
    forward, backward = _compute_of_rank(size, pairs, machine, rank)
    tensor, pipeline = sent.get(TENSOR, 0.0), sent.get(PIPELINE, 0.0)
    # Narayanan et al. 2021, section 2.2: (p - 1) / v times the work of one micro-batch passes before all ranks work.
    fill = (size.layout.pipeline_model_parallel_size - 1) / size.num_chunks
    bubble = fill * (forward + backward + tensor + pipeline) / size.microbatches
    reduced = sent.get(DATA, 0.0) - gathered
    if size.layout.overlap_grad_reduce:
        reduced = max(0.0, reduced - backward / size.microbatches)  # of the last micro-batch: earlier ones add up
    if size.layout.overlap_param_gather:
        gathered = max(0.0, gathered - forward / size.microbatches)
    return StepTime(
        compute=forward + backward,
        bubble=bubble,
        tensor=tensor,
        pipeline=pipeline,
        data=reduced + gathered + sent.get(EMBEDDING, 0.0),
    )


def _compute_of_rank(size: TrainingSize, pairs: VisiblePairs, machine: Machine, rank: int) -> tuple[float, float]:
    """Seconds of all forward and all backward passes; recomputation belongs to the backward ones."""
    shape = size.shape
    forward = again = 0.0
    for stage in size.chunks_of(rank):
        recomputed = size.recomputed_layers(stage)
        for layer, count in shape.kinds_of(stage, 0, stage.num_layers).items():
            forward += count * layer_multiplications(shape.model, layer, pairs)
            if size.layout.recompute_granularity == "selective":
                again += count * score_multiplications(shape.model, layer, pairs)
        for layer, count in shape.kinds_of(stage, 0, recomputed).items():
            again += count * layer_multiplications(shape.model, layer, pairs)
        if stage.holds_head:
            forward += head_multiplications(shape)
    rows = size.microbatches * size.batch.micro_batch_size
    unit = MULTIPLY_AND_ADD * rows / size.layout.tensor_model_parallel_size / machine.flops
    return forward * unit, ((FORWARD_AND_BACKWARD - 1) * forward + again) * unit


def _bandwidth(size: TrainingSize, machine: Machine, group: str) -> float:
    """Of the slowest link of a group. Ranks of a tensor group are neighbours, then those of a data group."""
    tensor = size.layout.tensor_model_parallel_size
    reach = {TENSOR: tensor, DATA: tensor * size.data_parallel_size}.get(group, size.world_size)
    return machine.node_bandwidth if reach <= machine.devices_per_node else machine.network_bandwidth
