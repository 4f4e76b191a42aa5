"""Reports as a loop would make them, for the tests of hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megatron.loop.hooks.protocol import RunFacts
from megatron.loop.hooks.registry import HookSetup
from megatron.loop.options import LoggingOptions
from megatron.loop.report import StepReport, ValidationReport


def step_report(iteration: int, **changes: Any) -> StepReport:
    """A step of 4 samples of 128 tokens whose loss is 10 / iteration."""
    values: dict[str, Any] = {
        "iteration": iteration,
        "consumed_samples": 4 * iteration,
        "consumed_tokens": 512 * iteration,
        "loss_tokens": 500 * iteration,
        "global_batch_size": 4,
        "losses": {"lm loss": 10.0 / iteration},
        "learning_rate": 1e-3,
        "grad_norm": 1.5,
        "loss_scale": None,
        "iteration_seconds": 0.25,
        "tokens_per_second": 2048.0,
        "tflops_per_device": 0.75,
        "mfu": None,
        "memory_bytes": 2**20,
        "skipped": False,
        "nonfinite": None,
        "skipped_total": 0,
        "nonfinite_total": 0,
    }
    return StepReport(**{**values, **changes})


def validation_report(iteration: int) -> ValidationReport:
    """A validation after `iteration`, loss 2."""
    return ValidationReport(
        iteration=iteration,
        consumed_samples=4 * iteration,
        consumed_tokens=512 * iteration,
        losses={"lm loss": 2.0},
        seconds=1.5,
    )


def facts(
    run_folder: Path | None, start_iteration: int = 0, is_main: bool = True, owes_validation: bool = False
) -> RunFacts:
    """A run of 100 steps."""
    return RunFacts(
        run_folder=run_folder,
        is_main=is_main,
        start_iteration=start_iteration,
        train_iters=100,
        owes_validation=owes_validation,
        description="causal_decoder full_lm, TP2",
    )


def setup(run_folder: Path | None, **logging: Any) -> HookSetup:
    """What decides the hooks of a run."""
    return HookSetup(logging=LoggingOptions(**logging), run_folder=run_folder, settings={"lr": 1e-3})
