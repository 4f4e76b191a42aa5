"""What one step did: the record that hooks log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Figures of one step, the same on every rank.

    losses: mean per target token, by name ("lm loss"; with z-loss also "z loss", its weighted part of what is trained
    on, which no other loss contains). Times in seconds, memory in bytes. `skipped`: the step was not
    applied because of a float16 overflow; `nonfinite`: the first loss or parameter that was not finite, else None.
    Totals count from the start of the run and include this step.
    """

    iteration: int
    consumed_samples: int
    consumed_tokens: int
    loss_tokens: int
    global_batch_size: int
    losses: dict[str, float]
    learning_rate: float
    grad_norm: float
    loss_scale: float | None
    iteration_seconds: float
    tokens_per_second: float
    tflops_per_device: float
    mfu: float | None
    memory_bytes: int
    skipped: bool
    nonfinite: str | None
    skipped_total: int
    nonfinite_total: int

    def as_metrics(self) -> dict[str, Any]:
        """The line of metrics.jsonl: every loss by its name, then Megatron's names where it has one."""
        return {
            "iteration": self.iteration,
            "consumed_samples": self.consumed_samples,
            "consumed_tokens": self.consumed_tokens,
            "loss_tokens": self.loss_tokens,
            **self.losses,
            "learning-rate": self.learning_rate,
            "batch-size": self.global_batch_size,
            "grad-norm": self.grad_norm,
            "loss-scale": self.loss_scale,
            "iteration-time": self.iteration_seconds,
            "tokens-per-second": self.tokens_per_second,
            "tflops-per-device": self.tflops_per_device,
            "mfu": self.mfu,
            "memory-bytes": self.memory_bytes,
            "skipped": self.skipped,
            "nonfinite": self.nonfinite,
        }


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """Losses on the fixed validation set after an iteration: mean per target token, by name."""

    iteration: int
    consumed_samples: int
    consumed_tokens: int
    losses: dict[str, float]
    seconds: float

    def as_metrics(self) -> dict[str, Any]:
        """The line of metrics.jsonl: names end in ` validation`, as Megatron's TensorBoard tags do."""
        return {
            "iteration": self.iteration,
            "consumed_samples": self.consumed_samples,
            "consumed_tokens": self.consumed_tokens,
            **{f"{name} validation": value for name, value in self.losses.items()},
            "validation-time": self.seconds,
        }
