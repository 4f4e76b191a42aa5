"""Rules about what must be on the machine before a run starts: token files, tokenizer, folders, optional packages."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron.checkpoint.folders import checkpoints_of
from megatron.checkpoint.options import CheckpointOptions
from megatron.data.options import DataOptions, blend_of
from megatron.data.pair_paths import pair_fault
from megatron.loop.options import LoggingOptions
from megatron.objectives.registry import OBJECTIVES


def token_files_exist(objective: Any, data: DataOptions) -> Iterator[str]:
    """Every part of every blend has its two files, and those of an objective that reads examples four."""
    name = objective.objective
    reads_pairs = name in OBJECTIVES and OBJECTIVES[name].reads_pairs
    if not data.data_path and not data.train_data_path:
        written = "of a data set that tools/prepare_tasks.py" if reads_pairs else "that tools/preprocess_data.py"
        yield f"--data-path is missing; give the PREFIX {written} wrote, without .bin or .idx."
    for flag, parts in (
        ("--data-path", data.data_path),
        ("--train-data-path", data.train_data_path),
        ("--valid-data-path", data.valid_data_path),
    ):
        for _, prefix in blend_of(parts):
            if reads_pairs:
                fault = pair_fault(prefix)
                yield from (f"{flag} {prefix} {rest}" for rest in (fault,) if rest)
            else:
                yield from _prefix_faults(flag, prefix)


def _prefix_faults(flag: str, prefix: str) -> Iterator[str]:
    stem = prefix.removesuffix(".bin").removesuffix(".idx")
    if stem != prefix and os.path.isfile(f"{stem}.bin"):
        yield f"{flag} {prefix} is a file of a pair; name both by their prefix, {stem}."
        return
    missing = [suffix for suffix in (".bin", ".idx") if not os.path.isfile(prefix + suffix)]
    if len(missing) == 2 and pair_fault(prefix) is None:
        yield f"{flag} {prefix} holds inputs with targets, and not text; train with finetune_t0.py."
    elif missing:
        yield f"{flag} {prefix}: {' and '.join(prefix + suffix for suffix in missing)} not found; check the path."


def tokenizer_exists(data: DataOptions) -> Iterator[str]:
    """The tokenizer is a file or a folder, as its type asks."""
    model = data.tokenizer_model
    if not model:
        yield "--tokenizer-model is missing; give the tokenizer that made the token files."
    elif not os.path.exists(model):
        yield f"--tokenizer-model {model} not found; check the path."
    elif data.tokenizer_type == "SentencePieceTokenizer" and os.path.isdir(model):
        yield f"--tokenizer-model {model} is a folder; give a .model file or --tokenizer-type HuggingFaceTokenizer."
    elif data.tokenizer_type == "HuggingFaceTokenizer" and not os.path.isdir(model):
        yield f"--tokenizer-model {model} is not a folder; give one or --tokenizer-type SentencePieceTokenizer."


def run_folders_usable(checkpoint: CheckpointOptions) -> Iterator[str]:
    """The folder to start from is there, unless the run has begun, and the one to write can be written."""
    has_begun = checkpoint.save and checkpoints_of(Path(checkpoint.save))
    if checkpoint.load and not has_begun and not os.path.isdir(checkpoint.load):
        yield f"--load {checkpoint.load} is not a folder; check the path."
    if checkpoint.save:
        yield from unwritable("--save", checkpoint.save)


def logging_usable(logging: LoggingOptions) -> Iterator[str]:
    """What the logs need is there."""
    if logging.tensorboard_dir:
        yield from unwritable("--tensorboard-dir", logging.tensorboard_dir)
    if logging.wandb_project and importlib.util.find_spec("wandb") is None:
        yield "--wandb-project needs the wandb package; run `pip install wandb` or leave the flag out."


def unwritable(flag: str, folder: str) -> Iterator[str]:
    """A fault if `folder` cannot be made or written; it is judged by the part of the path that exists."""
    existing = Path(folder).absolute()
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not os.path.isdir(existing):
        yield f"{flag} {folder}: {existing} is not a folder; choose another path."
    elif not os.access(existing, os.W_OK | os.X_OK):
        yield f"{flag} {folder}: no permission to write in {existing}; choose another folder."


FILE_RULES = (token_files_exist, tokenizer_exists, run_folders_usable, logging_usable)
