"""A checkpoint of weights alone, written block after block: any layout loads it, without an optimizer's state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from torch import Tensor

from megatron.checkpoint import folders
from megatron.checkpoint.contents import Contents
from megatron.checkpoint.manifest import Manifest, Piece, TensorEntry
from megatron.conversion.tensor_writer import PlannedTensor, plan_shards, write_files


def write_checkpoint(
    run_folder: Path,
    contents: Contents,
    planned: Sequence[PlannedTensor],
    blocks: Iterable[Tensor],
    *,
    max_shard_bytes: int,
    advance: Callable[[int], None],
) -> Path:
    """Write the checkpoint of `contents.progress.iteration` into a run folder that has none: its folder.

    blocks: of the tensors in the order of the plan, see write_files. advance: hears of bytes that are written. Raises
    UserError when the disk does not let us write.
    """
    iteration = contents.progress.iteration
    folder = folders.unfinished_folder(run_folder, iteration)
    whole = {tensor.name: _name_of_whole(tensor) for tensor in planned}
    stored = [PlannedTensor(whole[tensor.name], tensor.dtype, tensor.shape) for tensor in planned]
    shards = {
        f"shard_{number:05d}.safetensors": shard for number, shard in enumerate(plan_shards(stored, max_shard_bytes))
    }
    checksums = write_files(folder, shards, blocks, advance, with_checksums=True)
    file_of = {tensor.name: file for file, shard in shards.items() for tensor in shard}
    entries = {}
    for tensor in planned:
        name = whole[tensor.name]
        origin = (0,) * len(tensor.shape)
        piece = Piece(file_of[name], name, origin, tensor.shape, checksums[name])
        entries[tensor.name] = TensorEntry(tensor.dtype, tensor.shape, (piece,))
    sizes = {file: (folder / file).stat().st_size for file in shards}
    Manifest(entries, sizes, contents).write(folder)
    return folders.publish(run_folder, iteration)


def _name_of_whole(tensor: PlannedTensor) -> str:
    """What the one piece of a tensor is called in its file."""
    return f"{tensor.name}@{','.join('0' for _ in tensor.shape)}"
