"""When and how the loop saves: at once or beside training, with retention, and with a warning instead of a crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from megatron.core.dist_checkpointing.mapping import ShardedTensor

from megatron.basics.errors import UserError
from megatron.checkpoint import folders
from megatron.checkpoint.contents import Contents
from megatron.checkpoint.optimizer_state import optimizer_tensors
from megatron.checkpoint.options import CheckpointOptions
from megatron.checkpoint.save import PendingSave
from megatron.checkpoint.state import model_state, tensors_to_save
from megatron.layout.grid import Grid
from megatron.loop.setup import TrainableModel


def tensors_of_checkpoint(model: TrainableModel) -> list[ShardedTensor]:
    """Weights and optimizer state on this rank; the data are views."""
    state = model_state([chunk.module for chunk in model.chunks])
    # The optimizer's part looks parameters up in the model's, so it is made before that is taken apart.
    moments = optimizer_tensors(model.inner_optimizer, state)
    return tensors_to_save(state) + moments


class Saver:
    """Writes checkpoints of one run folder; at most one is on its way at any time."""

    def __init__(
        self,
        options: CheckpointOptions,
        run_folder: Path,
        model: TrainableModel,
        grid: Grid,
        say: Callable[[str], None],
    ) -> None:
        self.options, self.run_folder, self.model, self.grid, self.say = options, run_folder, model, grid, say
        self.saved_iteration: int | None = None
        self._pending: PendingSave | None = None
        self._pending_iteration = 0
        self._newest_sound: int | None = None

    @property
    def has_unwritten(self) -> bool:
        """Whether this rank still writes; asked of all ranks once a step."""
        return self._pending is not None and not self._pending.is_written

    @property
    def has_pending(self) -> bool:
        """Whether a save waits to be finished; the same on all ranks."""
        return self._pending is not None

    def save(self, contents: Contents, *, wait: bool) -> None:
        """Save now. A collective. Unless `wait`, an asynchronous save returns once everything is staged.

        A failure is a warning, and the run goes on with its older checkpoints; with --strict-save it is a UserError.
        """
        self.finish()
        iteration = contents.progress.iteration
        with self.model.parameters_gathered():
            tensors = tensors_of_checkpoint(self.model)
            self._pending = PendingSave.start(tensors, self.run_folder, contents, self.grid)
            self._pending_iteration = iteration
        if wait or not self.options.async_save:
            self.finish(strict=wait)

    def finish(self, *, strict: bool = False) -> None:
        """Complete the save that is on its way, if there is one. A collective.

        strict: a failure is an error even without --strict-save; the last save of a run has no later one to wait for.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        try:
            folder = pending.finish()
        except UserError as fault:
            if strict or self.options.strict_save:
                raise
            self.say(f"warning: {fault} Training goes on; the next save tries again.")
            return
        self.saved_iteration = self._pending_iteration
        self.say(f"saved {folder}")
        self.remove_surplus(self._pending_iteration)

    def remove_surplus(self, newest: int) -> None:
        """Keep what --keep-last and --keep-every ask for, counted from iteration `newest`, which must be sound.

        What lies between it and the one that was sound before is no checkpoint of this start: it was passed over as
        damaged, and now that training has gone past it, it is set aside.
        """
        if not self.grid.is_main:
            return
        if self._newest_sound is not None:
            folders.set_aside_between(self.run_folder, self._newest_sound, newest)
        self._newest_sound = newest
        keep_last, keep_every = self.options.keep_last, self.options.keep_every
        for iteration in folders.remove_surplus(self.run_folder, newest, keep_last, keep_every):
            self.say(f"removed the checkpoint of iteration {iteration} (--keep-last {keep_last})")
