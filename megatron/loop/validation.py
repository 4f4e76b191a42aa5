"""Losses without gradients, on a fixed set of samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from megatron.device.device import Device
from megatron.layout.grid import Grid
from megatron.loop.setup import TrainableModel
from megatron.loop.step import LossRule, Microbatches, reduce_losses, run_schedule


@torch.no_grad()
def validate(
    model: TrainableModel, steps: Iterator[Microbatches], rule: LossRule, grid: Grid, device: Device
) -> dict[str, float]:
    """Mean loss per target token over all micro-batches of all steps, by name; dropout and z-loss off. A collective."""
    rule = replace(rule, z_loss_coeff=0.0)  # runs are compared by what they predict
    outputs = []
    with model.parameters_gathered():
        for chunk in model.chunks:
            chunk.eval()
        for batches in steps:
            outputs += run_schedule(model.chunks, batches, rule, grid, forward_only=True)
        for chunk in model.chunks:
            chunk.train()
    losses, _ = reduce_losses(outputs, rule.loss_names, (), grid, device)
    return {name: total / max(count, 1.0) for name, (total, count) in losses.items()}
