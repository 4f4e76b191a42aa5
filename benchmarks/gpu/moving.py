"""Part `checkpoint`: a run begins on the GPU, goes on on the CPU, and comes back."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.gpu.training import ROUNDING_TOLERANCE, Corpus, largest_difference, losses_of, pretrain
from benchmarks.gpu.workplace import Line, Workplace
from megatron.checkpoint.folders import checkpoints_of
from megatron.checkpoint.manifest import TensorEntry, read_manifest

FIRST, SECOND, LAST = 10, 15, 20


def move(place: Workplace) -> None:
    """Bits survive every load; the losses go on as if the run had stayed where it was."""
    corpus, folder = Corpus.make(place), place.folder
    stays, moves = folder / "stays", folder / "moves"

    def go_on(name: str, until: int, device: str, save: Path) -> list[float]:
        flags = ("--bf16", "--train-iters", str(until), "--save-interval", str(FIRST))
        return losses_of(pretrain(place, corpus, name, *flags, device=device, save=save))

    go_on("begins", FIRST, place.device, stays)
    shutil.copytree(stays, moves)
    expected = go_on("stays", LAST, place.device, stays)
    _say_bits(place, moves, "cpu", f"{place.device} -> cpu")
    losses = go_on("on-cpu", SECOND, "cpu", moves)
    _say_bits(place, moves, place.device, f"cpu -> {place.device}")
    losses += go_on("comes-back", LAST, place.device, moves)
    difference = largest_difference(losses, expected)
    place.say(
        Line(
            check=f"losses of {place.device} -> cpu -> {place.device} against a run that stayed",
            outcome=f"largest relative difference {difference:.1e}, at most {ROUNDING_TOLERANCE:.0e}",
            passed=difference <= ROUNDING_TOLERANCE,
            figures={"losses": losses, "expected": expected, "difference": difference},
        )
    )


def _say_bits(place: Workplace, run_folder: Path, device: str, name: str) -> None:
    """Load the newest checkpoint on a device, save it from there, and compare the two."""
    copy = place.folder / f"reloaded-on-{device}"
    shutil.rmtree(copy, ignore_errors=True)
    place.python("-m", "benchmarks.gpu.reload", device, str(run_folder), str(copy), name=f"reload-{device}")
    before, after = (_tensors(folder) for folder in (run_folder, copy))
    differing = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    example = f", e.g. {differing[0]}" if differing else ""
    place.say(
        Line(
            check=f"{name}: weights, master weights and moments bitwise",
            outcome=f"{len(before)} tensors, {len(differing)} differ{example}",
            passed=bool(before) and not differing,
            figures={"tensors": len(before), "differing": differing},
        )
    )


def _tensors(run_folder: Path) -> dict[str, tuple[str, tuple[int, ...], list[tuple[tuple[int, ...], int]]]]:
    """Dtype, shape, and place and CRC-32 of the pieces of every tensor of the newest checkpoint."""

    def facts(entry: TensorEntry) -> tuple[str, tuple[int, ...], list[tuple[tuple[int, ...], int]]]:
        return entry.dtype, entry.shape, sorted((piece.offset, piece.crc32) for piece in entry.pieces)

    _, newest = checkpoints_of(run_folder)[-1]
    return {key: facts(entry) for key, entry in read_manifest(newest).tensors.items()}
