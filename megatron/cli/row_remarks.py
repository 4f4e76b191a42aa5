"""What is said at the start of rows that will do, but could do better. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from megatron.basics.errors import UserError
from megatron.cli.run_config import RunConfig
from megatron.data.options import DataOptions, blend_of
from megatron.data.token_file_facts import TokenFileFacts
from megatron.objectives.protocol import Objective
from megatron.objectives.registry import OBJECTIVES
from megatron.records.room import Room
from megatron.records.special_tokens import SpecialTokens

FULL = 0.9
TARGETS_FOR_AN_INPUT = 64  # more than any objective makes


def row_remarks(config: RunConfig, objective: Objective, special: SpecialTokens, room: Room) -> Iterator[str]:
    """One line for each thing to know about windows; what is packed has its say where it is packed."""
    if config.data.pack_documents or objective.reads_pairs:
        return
    if objective.is_complete:
        yield from _ends_inside(config)
    if room.is_split:
        yield from _rows_that_stay_empty(config, objective, special, room)


def _ends_inside(config: RunConfig) -> Iterator[str]:
    """T5's windows hold text alone; those cut from files with end tokens hold them wherever documents meet."""
    with_ends = [prefix for prefix in _prefixes(config.data) if _has_ends(prefix)]
    if with_ends:
        others = f" and {len(with_ends) - 1} more" if len(with_ends) > 1 else ""
        yield (
            f"--objective {config.objective}: windows have end tokens where documents meet, because {with_ends[0]}"
            f"{others} was made with --append-eod; without it, or with --pack-documents, they have none."
        )


def _rows_that_stay_empty(config: RunConfig, objective: Objective, special: SpecialTokens, room: Room) -> Iterator[str]:
    size = objective.size(objective.window_length)
    if min(size.inputs / room.inputs, size.targets / room.targets) >= FULL:
        return
    fitting = f"--decoder-seq-length {size.targets}"
    if size.inputs < FULL * room.inputs:
        # The decoder that the whole encoder row needs, unless this asks for more sentinels than there are.
        targets = TARGETS_FOR_AN_INPUT * room.inputs
        wide = Room(room.inputs, targets, room.inputs + targets)
        try:
            wider: Objective = OBJECTIVES[config.objective].build(config.objective_options, special, wide)
            fitting = f"--decoder-seq-length {wider.size(wider.window_length).targets}"
        except UserError:
            fitting = f"--seq-length {size.inputs}"
    yield (
        f"--objective {config.objective}: a window fills at most {size.inputs} positions of --seq-length {room.inputs} "
        f"and {size.targets} of --decoder-seq-length {room.targets}; {fitting} fits."
    )


def _prefixes(data: DataOptions) -> list[str]:
    return [prefix for parts in (data.data_path, data.train_data_path) for _, prefix in blend_of(parts)]


def _has_ends(prefix: str) -> bool:
    facts = TokenFileFacts.read(prefix)
    return facts is not None and facts.eod_id is not None
