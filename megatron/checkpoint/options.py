"""What is saved, where, how often, and what a run starts from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from megatron.basics.option import Options, option


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions(Options):
    """Run folders and checkpoints."""

    group: ClassVar[str] = "checkpoints"

    save: str | None = option(
        None, "Run folder to write; a run that is already in it goes on from its newest checkpoint."
    )
    load: str | None = option(None, "Run folder to start from when --save holds no checkpoint yet.")
    load_iteration: int | None = option(
        None, "Checkpoint of --load to take. Default: the newest complete one.", minimum=0
    )
    save_interval: int | None = option(None, "Iterations between checkpoints. Default: only at the end.", minimum=1)
    keep_last: int | None = option(None, "Keep this many newest checkpoints. Default: all.", minimum=1)
    keep_every: int | None = option(
        None, "With --keep-last: also keep every checkpoint at a multiple of this.", minimum=1
    )
    async_save: bool = option(False, "Write checkpoints while training goes on.")
    finetune: bool = option(False, "Take only the weights of --load: iteration, schedule and optimizer start afresh.")
    strict_save: bool = option(False, "Stop when a checkpoint cannot be written, rather than warn and go on.")

    def rules(self) -> Iterator[str]:
        """Which of these settings need each other."""
        if self.finetune and not self.load:
            yield "--finetune needs --load."
        if self.load_iteration is not None and not self.load:
            yield "--load-iteration needs --load."
        if not self.save:
            for name in ("save_interval", "keep_last", "async_save", "strict_save"):
                if getattr(self, name):
                    yield f"--{name.replace('_', '-')} needs --save."
        if self.keep_every and not self.keep_last:
            yield "--keep-every needs --keep-last; without it every checkpoint is kept."
