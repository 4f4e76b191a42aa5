"""What a person sees of a run: a progress bar on a terminal, elsewhere Megatron's log lines.

The lines keep the fields, their names and their widths of Megatron-LM's `training_log`, which other people's parsers
read; losses and times are means over the steps since the line before, applied steps alone for losses.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from datetime import datetime

from megatron.basics.progress import Progress
from megatron.loop.hooks.protocol import Hook, RunFacts
from megatron.loop.hooks.registry import HookSetup
from megatron.loop.report import StepReport, ValidationReport


class LogHook(Hook):
    """Prints on rank 0 every `log_interval` steps and after each validation."""

    def __init__(self, log_interval: int) -> None:
        self.log_interval = log_interval
        self._facts: RunFacts | None = None
        self._bar: Progress | None = None
        self._since_last_line: list[StepReport] = []

    @classmethod
    def for_run(cls, setup: HookSetup) -> LogHook:
        """Every run is logged."""
        return cls(setup.logging.log_interval)

    def on_start(self, facts: RunFacts) -> None:
        """Say what is trained."""
        if not facts.is_main:
            return
        self._facts = facts
        print(facts.description, flush=True)
        if sys.stderr.isatty():
            self._bar = Progress("training", facts.train_iters, "step", already_done=facts.start_iteration)

    def on_step(self, report: StepReport) -> None:
        """Move the bar, or collect a line."""
        if self._facts is None:
            return
        if self._bar is not None:
            self._bar.advance(note=bar_note(report))
            return
        self._since_last_line.append(report)
        if report.iteration % self.log_interval == 0 or report.iteration == self._facts.train_iters:
            print(log_line(self._since_last_line, self._facts.train_iters), flush=True)
            self._since_last_line.clear()

    def on_validation(self, report: ValidationReport) -> None:
        """Print the validation losses."""
        if self._bar is not None:
            self._bar.write(validation_line(report))
        elif self._facts is not None:
            print(validation_line(report), flush=True)

    def on_end(self) -> None:
        """Leave the terminal clean."""
        if self._bar is not None:
            self._bar.close()


def log_line(reports: Sequence[StepReport], train_iters: int) -> str:
    """Megatron's line about the steps since the line before; the last of `reports` gives what is not a mean."""
    last = reports[-1]
    milliseconds = 1000.0 * sum(report.iteration_seconds for report in reports) / len(reports)
    tflops = sum(report.tflops_per_device for report in reports) / len(reports)
    applied = [report for report in reports if not report.skipped and report.nonfinite is None]
    parts = [
        f" [{datetime.now():%Y-%m-%d %H:%M:%S.%f}] iteration {last.iteration:8d}/{train_iters:8d}",
        f"consumed samples: {last.consumed_samples:12d}",
        f"elapsed time per iteration (ms): {milliseconds:.1f}",
        f"throughput per GPU (TFLOP/s/GPU): {tflops:{'.1f' if tflops >= 10 else '.3f'}}",
        f"learning rate: {last.learning_rate:.6E}",
        f"global batch size: {last.global_batch_size:5d}",
    ]
    for name in last.losses if applied else ():
        parts.append(f"{name}: {sum(report.losses[name] for report in applied) / len(applied):.6E}")
    parts += [
        f"loss scale: {1.0 if last.loss_scale is None else last.loss_scale:.1f}",
        f"grad norm: {last.grad_norm:.3f}",
        f"number of skipped iterations: {sum(report.skipped for report in reports):3d}",
        f"number of nan iterations: {sum(report.nonfinite is not None for report in reports):3d}",
    ]
    return " | ".join(parts) + " |"


def validation_line(report: ValidationReport) -> str:
    """Megatron's line about a validation: each loss and its perplexity."""
    parts = [f" validation loss at iteration {report.iteration}"]
    for name, value in report.losses.items():
        parts += [f"{name} value: {value:.6E}", f"{name} PPL: {perplexity(value):.6E}"]
    return " | ".join(parts) + " |"


def perplexity(loss: float) -> float:
    """exp of a mean loss in nats; of at most 20, as Megatron has it, so that a bad start does not overflow."""
    return math.exp(min(20.0, loss))


def bar_note(report: StepReport) -> str:
    """What stands behind the bar."""
    losses = ", ".join(f"{name} {value:.4f}" for name, value in report.losses.items())
    return f"{losses}, {report.tokens_per_second:,.0f} tokens/s"
