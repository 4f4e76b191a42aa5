"""Saving a run: staged in memory, written aside, and named only when every rank's part is on disk."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

import torch.distributed as dist
from megatron.core.dist_checkpointing.mapping import ShardedTensor

from megatron.basics.errors import UserError
from megatron.checkpoint import folders
from megatron.checkpoint.contents import Contents
from megatron.checkpoint.manifest import Manifest, TensorEntry
from megatron.checkpoint.shards import StagedShard, stage, write_shard
from megatron.layout.grid import Grid


@dataclass
class PendingSave:
    """One rank's part of a checkpoint on its way to disk.

    `start` returns once everything is staged; a thread writes. Every rank must call `finish` (a collective) some time
    after `is_written`; until then nothing is visible.
    """

    run_folder: Path
    contents: Contents
    grid: Grid
    _thread: threading.Thread | None = None
    _entries: dict[str, TensorEntry] = field(default_factory=dict)
    _files: dict[str, int] = field(default_factory=dict)
    _fault: BaseException | None = None

    @classmethod
    def start(cls, tensors: list[ShardedTensor], run_folder: Path, contents: Contents, grid: Grid) -> PendingSave:
        """Stage this rank's tensors and begin to write them."""
        save = cls(run_folder, contents, grid)
        if grid.is_main:
            shutil.rmtree(save._folder, ignore_errors=True)
        dist.barrier()
        file = f"shard_{grid.rank:05d}.safetensors"
        staged = stage(tensors, file)
        save._thread = threading.Thread(target=save._write, args=(staged, file), name="checkpoint-writer", daemon=True)
        save._thread.start()
        return save

    @property
    def is_written(self) -> bool:
        """Whether this rank's part is done, well or not."""
        return self._thread is not None and not self._thread.is_alive()

    def finish(self) -> Path:
        """Wait for all ranks, write the manifest, give the checkpoint its name. A collective.

        Raises UserError on every rank, with nothing left behind, when any rank could not write its part.
        """
        assert self._thread is not None, "start() makes a pending save"
        self._thread.join()
        fault = str(self._fault) if self._fault is not None else None
        parts: list[tuple[dict[str, TensorEntry], dict[str, int], str | None] | None]
        parts = [None] * self.grid.world_size
        dist.gather_object((self._entries, self._files, fault), parts if self.grid.is_main else None, dst=0)
        outcome: list[str | None] = [None]
        if self.grid.is_main:
            outcome = [self._publish([part for part in parts if part is not None])]
        dist.broadcast_object_list(outcome, src=0)
        if outcome[0] is not None:
            raise UserError(outcome[0])
        return folders.checkpoint_folder(self.run_folder, self.contents.progress.iteration)

    @property
    def _folder(self) -> Path:
        return folders.unfinished_folder(self.run_folder, self.contents.progress.iteration)

    def _write(self, staged: StagedShard, file: str) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._entries, self._files = write_shard(staged, self._folder, file)
        except BaseException as fault:  # told to all ranks by finish()
            self._fault = fault

    def _publish(self, parts: list[tuple[dict[str, TensorEntry], dict[str, int], str | None]]) -> str | None:
        """Write manifest and name; the sentence that says what went wrong, or None."""
        faults = [fault for _, _, fault in parts if fault]
        if not faults:
            try:
                tensors: dict[str, TensorEntry] = {}
                for entries, _, _ in parts:
                    for key, entry in entries.items():
                        known = tensors[key].pieces if key in tensors else ()
                        tensors[key] = TensorEntry(entry.dtype, entry.shape, (*known, *entry.pieces))
                files = {name: size for _, part, _ in parts for name, size in part.items()}
                self._require_all_files(files)
                Manifest(tensors, files, self.contents).write(self._folder)
                folders.publish(self.run_folder, self.contents.progress.iteration)
                return None
            except (OSError, UserError) as fault:
                faults = [str(fault)]
        shutil.rmtree(self._folder, ignore_errors=True)
        return f"the checkpoint of iteration {self.contents.progress.iteration} was not saved: {faults[0]}"

    def _require_all_files(self, files: dict[str, int]) -> None:
        """Every rank's file must be here: folders of single nodes would each hold a part of a checkpoint."""
        for name, size in files.items():
            path = self._folder / name
            if not path.is_file() or path.stat().st_size != size:
                raise UserError(f"{path} is not seen by rank 0; --save must be a folder that all nodes share.")
