"""TensorBoard under Megatron's tag names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.loop.hooks.log import perplexity
from megatron.loop.hooks.protocol import Hook, RunFacts
from megatron.loop.hooks.registry import HookSetup
from megatron.loop.report import StepReport, ValidationReport

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SECONDS_BETWEEN_FLUSHES = 10


class TensorBoardHook(Hook):
    """Writes every step, on rank 0, by iteration; the `... vs samples` tags lie in the subfolder `samples`.

    They need a folder of their own: on a restart TensorBoard drops, over all tags of a folder, what lies at or beyond
    the step that the new part begins with, and a sample count is no iteration.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._is_main = False
        self._by_iteration: SummaryWriter | None = None
        self._by_samples: SummaryWriter | None = None

    @classmethod
    def for_run(cls, setup: HookSetup) -> TensorBoardHook | None:
        """--tensorboard-dir, or tensorboard/ in the run folder."""
        if setup.logging.tensorboard_dir:
            return cls(Path(setup.logging.tensorboard_dir))
        return cls(setup.run_folder / "tensorboard") if setup.run_folder else None

    def on_start(self, facts: RunFacts) -> None:
        """Writers open at the first step, which knows where in the data the run begins."""
        self._is_main = facts.is_main

    def on_step(self, report: StepReport) -> None:
        """Losses, rate, norm, sizes and times."""
        if not self._is_main:
            return
        self._open(report.iteration, report.consumed_samples - report.global_batch_size + 1)
        curves = {
            **report.losses,
            "learning-rate": report.learning_rate,
            "batch-size": report.global_batch_size,
            "grad-norm": report.grad_norm,
            "loss-scale": report.loss_scale,
        }
        self._write(curves, report.iteration, report.consumed_samples)
        figures = {
            "iteration-time": report.iteration_seconds,
            "throughput": report.tflops_per_device,
            "tokens-per-second": report.tokens_per_second,
            "mfu": report.mfu,
            "mem-max-allocated-bytes": report.memory_bytes,
        }
        self._write(figures, report.iteration, None)

    def on_validation(self, report: ValidationReport) -> None:
        """Losses and perplexities on the validation set."""
        if not self._is_main:
            return
        self._open(report.iteration + 1, report.consumed_samples + 1)
        for name, value in report.losses.items():
            curves = {f"{name} validation": value, f"{name} validation ppl": perplexity(value)}
            self._write(curves, report.iteration, report.consumed_samples)

    def on_end(self) -> None:
        """Flush and close."""
        for writer in (self._by_iteration, self._by_samples):
            if writer is not None:
                writer.close()

    def _open(self, first_iteration: int, first_sample: int) -> None:
        if self._by_iteration is not None:
            return
        from torch.utils.tensorboard import SummaryWriter  # a second of imports that only rank 0 has to pay

        self._by_iteration = SummaryWriter(
            str(self.folder), purge_step=first_iteration, flush_secs=SECONDS_BETWEEN_FLUSHES
        )
        self._by_samples = SummaryWriter(
            str(self.folder / "samples"), purge_step=first_sample, flush_secs=SECONDS_BETWEEN_FLUSHES
        )

    def _write(self, curves: Mapping[str, float | None], iteration: int, samples: int | None) -> None:
        assert self._by_iteration is not None and self._by_samples is not None
        for tag, value in curves.items():
            if value is None:
                continue
            self._by_iteration.add_scalar(tag, value, iteration)
            if samples is not None:
                self._by_samples.add_scalar(f"{tag} vs samples", value, samples)
