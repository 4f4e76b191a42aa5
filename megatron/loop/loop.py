"""Steps until done: train, validate, save, stop, and tell the hooks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from megatron.basics.errors import EXIT_DONE, EXIT_STOPPED_AFTER_SAVING, RunFault
from megatron.basics.seeds import seed_for
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.options import CheckpointOptions
from megatron.device.device import Device
from megatron.layout.grid import Grid
from megatron.loop.batch_ramp import BatchRamp
from megatron.loop.hooks.protocol import Hook, RunFacts
from megatron.loop.options import LoggingOptions, OptimizerOptions
from megatron.loop.report import StepReport, ValidationReport
from megatron.loop.saving import Saver
from megatron.loop.schedule import lr_at
from megatron.loop.setup import TrainableModel
from megatron.loop.step import LossRule, Microbatches, StepResult, train_step
from megatron.loop.stop_signal import StopSignal
from megatron.loop.throughput import Throughput
from megatron.loop.validation import validate
from megatron.records.batch import Batch


class BatchSource(Protocol):
    """Micro-batches as a function of the position in the data."""

    def microbatches(self, consumed_samples: int, num_microbatches: int) -> Iterator[Batch]:
        """The micro-batches of this rank for the step that begins after `consumed_samples` samples of the run."""

    def close(self) -> None:
        """End the threads that prepare them."""


@dataclass(kw_only=True)
class Training:
    """The parts of a run, plugged together by cli/training.py. `started`: time.monotonic() when the command began."""

    model: TrainableModel
    rule: LossRule
    grid: Grid
    device: Device
    train_source: BatchSource
    valid_source: BatchSource | None
    ramp: BatchRamp
    throughput: Throughput
    optimizer: OptimizerOptions
    logging: LoggingOptions
    checkpoint: CheckpointOptions
    train_iters: int
    tokens_per_sample: int
    seed: int
    hooks: Sequence[Hook]
    facts: RunFacts
    started: float
    saver: Saver | None
    contents_at: Callable[[Progress], Contents]
    stop_signal: StopSignal
    progress: Progress
    say: Callable[[str], None]

    def run(self) -> int:
        """Train from `progress` to the last iteration; the exit code of the command."""
        with contextlib.ExitStack() as held:
            for source in filter(None, (self.train_source, self.valid_source)):
                held.callback(source.close)
            for hook in self.hooks:
                held.callback(hook.on_end)
                hook.on_start(self.facts)
            return self._run()

    def _run(self) -> int:
        if self.saver is not None:  # a run that was killed after a save may not have come to this
            self.saver.remove_surplus(self.progress.iteration)
        if self.progress.owes_validation:
            self._validate()
        if self.progress.iteration >= self.train_iters:
            self.say(f"nothing to do: {self.progress.iteration} of --train-iters {self.train_iters} steps are done")
            return EXIT_DONE
        exit_code = EXIT_DONE
        while self.progress.iteration < self.train_iters:
            votes = self._step()
            validation_is_due = self._is_due(self.logging.eval_interval) or self.progress.iteration == self.train_iters
            if self._is_told_to_stop(votes):
                self.progress = replace(self.progress, owes_validation=validation_is_due)
                exit_code = EXIT_STOPPED_AFTER_SAVING
                break
            if validation_is_due:
                self._validate()
            if self._stops_as_planned():
                exit_code = EXIT_STOPPED_AFTER_SAVING
                break
            self._save_when_due(votes)
        self._save_at_the_end()
        return exit_code

    def _step(self) -> list[bool]:
        """One step; whether any rank was told to stop, still writes a checkpoint, or ran out of time."""
        started = self.device.clock()
        before = self.progress
        batch_size = self.ramp.batch_size(before.consumed_samples)
        num_microbatches = self.ramp.num_microbatches(before.consumed_samples)
        iteration = before.iteration + 1
        learning_rate = lr_at(self.optimizer, iteration, self.train_iters)
        result = train_step(
            self.model,
            Microbatches(self.train_source.microbatches(before.consumed_samples, num_microbatches), num_microbatches),
            self.rule,
            self.grid,
            self.device,
            dropout_seed=seed_for(self.seed, "step", iteration),
            learning_rate=learning_rate,
            asks=self._asks,
        )
        seconds = self.device.clock() - started
        self.progress = self._progress_after(result, batch_size)
        report = self._report(result, batch_size, learning_rate, seconds)
        for hook in self.hooks:
            hook.on_step(report)
        self._stop_when_hopeless(result)
        return result.votes

    def _asks(self) -> tuple[bool, bool, bool]:
        return (
            self.stop_signal.received is not None,
            self.saver is not None and self.saver.has_unwritten,
            self._is_out_of_time(),
        )

    def _progress_after(self, result: StepResult, batch_size: int) -> Progress:
        before = self.progress
        return Progress(
            iteration=before.iteration + 1,
            consumed_samples=before.consumed_samples + batch_size,
            consumed_tokens=before.consumed_tokens + batch_size * self.tokens_per_sample,
            loss_tokens=before.loss_tokens + result.loss_tokens,
            skipped_steps=before.skipped_steps + int(result.overflow),
            nonfinite_steps=before.nonfinite_steps + int(result.nonfinite is not None),
            nonfinite_in_a_row=before.nonfinite_in_a_row + 1 if result.nonfinite else 0,
        )

    def _report(self, result: StepResult, batch_size: int, learning_rate: float, seconds: float) -> StepReport:
        tokens_per_second = batch_size * self.tokens_per_sample / seconds
        tflops = self.throughput.tflops_per_device(tokens_per_second, self.grid.world_size)
        return StepReport(
            iteration=self.progress.iteration,
            consumed_samples=self.progress.consumed_samples,
            consumed_tokens=self.progress.consumed_tokens,
            loss_tokens=self.progress.loss_tokens,
            global_batch_size=batch_size,
            losses={name: total / max(count, 1.0) for name, (total, count) in result.losses.items()},
            learning_rate=learning_rate,
            grad_norm=result.grad_norm,
            loss_scale=result.loss_scale,
            iteration_seconds=seconds,
            tokens_per_second=tokens_per_second,
            tflops_per_device=tflops,
            mfu=self.throughput.mfu(tflops),
            memory_bytes=self.device.peak_memory_bytes(),
            skipped=result.overflow,
            nonfinite=result.nonfinite,
            skipped_total=self.progress.skipped_steps,
            nonfinite_total=self.progress.nonfinite_steps,
        )

    def _stop_when_hopeless(self, result: StepResult) -> None:
        if result.nonfinite is None:
            return
        first = self.progress.consumed_samples - self.ramp.batch_size_of_last_step(self.progress.consumed_samples)
        self.say(
            f"warning: {result.nonfinite} was not finite at iteration {self.progress.iteration} (samples {first} to "
            f"{self.progress.consumed_samples - 1}); the step was applied on no rank."
        )
        if self.progress.nonfinite_in_a_row >= self.logging.max_nonfinite_steps:
            if self.saver is not None:
                self.saver.finish()
            raise RunFault(
                f"{self.progress.nonfinite_in_a_row} steps in a row were not finite, last {result.nonfinite} at "
                f"iteration {self.progress.iteration}; resume from the last checkpoint with a lower --lr or "
                "--clip-grad, or with --bf16."
            )

    def _validate(self) -> None:
        if self.valid_source is None or self.logging.eval_iters == 0:
            return
        started = self.device.clock()
        batch_size, num_microbatches = self.ramp.final_batch_size, self.ramp.final_num_microbatches
        source = self.valid_source
        steps = (
            Microbatches(source.microbatches(number * batch_size, num_microbatches), num_microbatches)
            for number in range(self.logging.eval_iters)
        )
        losses = validate(self.model, steps, self.rule, self.grid, self.device)
        report = ValidationReport(
            iteration=self.progress.iteration,
            consumed_samples=self.progress.consumed_samples,
            consumed_tokens=self.progress.consumed_tokens,
            losses=losses,
            seconds=self.device.clock() - started,
        )
        for hook in self.hooks:
            hook.on_validation(report)

    def _is_due(self, interval: int | None) -> bool:
        return interval is not None and self.progress.iteration % interval == 0

    def _is_out_of_time(self) -> bool:
        limit = self.logging.exit_duration_in_mins
        return limit is not None and time.monotonic() - self.started > limit * 60.0

    def _is_told_to_stop(self, votes: Sequence[bool]) -> bool:
        """Whoever says so waits: nothing but the save comes in between."""
        told_to_stop, _, out_of_time = votes
        if told_to_stop:
            name = self.stop_signal.received.name if self.stop_signal.received else "a stop signal on another rank"
            self.say(f"stopping after iteration {self.progress.iteration}: {name}")
        elif out_of_time:
            self.say(f"stopping after iteration {self.progress.iteration}: --exit-duration-in-mins is over")
        return told_to_stop or out_of_time

    def _stops_as_planned(self) -> bool:
        is_over = self._is_due(self.logging.exit_interval) and self.progress.iteration < self.train_iters
        if is_over:
            self.say(f"stopping after iteration {self.progress.iteration}: --exit-interval")
        return is_over

    def _save_when_due(self, votes: Sequence[bool]) -> None:
        if self.saver is None:
            return
        _, somebody_writes, _ = votes
        if self.saver.has_pending and not somebody_writes:
            self.saver.finish()
        if self._is_due(self.checkpoint.save_interval) and self.progress.iteration < self.train_iters:
            self.saver.save(self.contents_at(self.progress), wait=False)

    def _save_at_the_end(self) -> None:
        if self.saver is None:
            return
        self.saver.finish()
        if self.saver.saved_iteration != self.progress.iteration and self.progress.iteration > 0:
            self.saver.save(self.contents_at(self.progress), wait=True)
