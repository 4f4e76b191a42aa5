"""The interface of a hook, and what a hook may know of the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megatron.loop.report import StepReport, ValidationReport


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What every hook is told once, before the first step.

    run_folder: the --save folder or None. is_main: this is rank 0, the one that writes. start_iteration: steps that
    were done before this start. owes_validation: the validation after the last of them is made up for first.
    description: one line that names the model and layout.
    """

    run_folder: Path | None
    is_main: bool
    start_iteration: int
    train_iters: int
    owes_validation: bool
    description: str


class Hook:
    """A habit of the loop; every method may be left as it is. Hooks never change the model or the loss.

    All hooks run on every rank, in order; those that write look at `facts.is_main`.
    """

    def on_start(self, facts: RunFacts) -> None:
        """Before the first step."""

    def on_step(self, report: StepReport) -> None:
        """After each step, applied or not."""

    def on_validation(self, report: ValidationReport) -> None:
        """After each validation."""

    def on_end(self) -> None:
        """After the last step, and when the run stops early or fails."""
