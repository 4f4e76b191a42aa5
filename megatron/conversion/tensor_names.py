"""The tensors that a folder should have beside those that it has."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from megatron.basics.errors import UserError, nearest_name
from megatron.conversion.family import Family
from megatron.conversion.hf_folder import HfFolder, shown
from megatron.conversion.rules import Pair


@dataclass(frozen=True)
class Matching:
    """names: what a folder calls each tensor of the rules. copies: names in the folder that must hold equal tensors."""

    names: dict[str, str]
    copies: tuple[tuple[str, str], ...]


def today(names: Collection[str], family: Family) -> list[str]:
    """Names of a folder as its class has them now."""
    return [family.aliases.get(name, name) for name in names]


def match(folder: HfFolder, family: Family, pairs: Sequence[Pair]) -> Matching:
    """Find each tensor of the rules in a folder. Raises UserError for all that is missing, too much or misshapen."""
    wanted = {name: shape for pair in pairs for name, shape in zip(pair.theirs, pair.shapes_of_theirs(), strict=True)}
    prefix = _left_out_prefix(folder, wanted)
    names: dict[str, str] = {}
    extra: list[str] = []
    faults: list[str] = []
    for stored in folder.tensors:
        name = family.aliases.get(stored, stored)
        if name not in wanted and name not in family.copies:
            name = f"{prefix}{name}"
        if any(re.fullmatch(pattern, name) for pattern in family.ignored):
            continue
        if name not in wanted and name not in family.copies:
            extra.append(stored)
        elif name in names:
            faults.append(f"{folder.path} has {names[name]} and {stored}, which are the same tensor; remove one.")
        else:
            names[name] = stored
    missing = [name for name in wanted if name not in names]
    faults += _renamed_or_gone(folder, family, wanted, missing, extra)
    faults += shown(
        [
            f"{folder.path}: {names[name]} is {list(folder.tensors[names[name]].shape)}, and by config.json "
            f"{list(shape)}; one of them belongs to another model."
            for name, shape in wanted.items()
            if name in names and folder.tensors[names[name]].shape != shape
        ]
    )
    if faults:
        raise UserError(*faults)
    copies = [(names[copy], names[of]) for copy, of in family.copies.items() if copy in names and copy not in wanted]
    return Matching({name: names[name] for name in wanted}, tuple(copies))


def _left_out_prefix(folder: HfFolder, wanted: Collection[str]) -> str:
    """`transformer.` where a folder was saved without its head, from inside the model; else an empty string."""
    ((prefix, _),) = Counter(name.split(".")[0] + "." for name in wanted).most_common(1)
    return "" if any(name.startswith(prefix) for name in folder.tensors) else prefix


def _renamed_or_gone(
    folder: HfFolder,
    family: Family,
    wanted: Mapping[str, tuple[int, ...]],
    missing: Sequence[str],
    extra: Sequence[str],
) -> Iterator[str]:
    gone: list[str] = []
    left = list(extra)
    for name in missing:
        # Each comparison takes long, and nobody reads a thousand of them.
        of_its_shape = (
            [other for other in left if folder.tensors[other].shape == wanted[name]] if len(gone) < 100 else []
        )
        guess = nearest_name(name, of_its_shape)
        if guess is None:
            gone.append(f"{folder.path} has no tensor {name} {list(wanted[name])}; download or save it again.")
        else:
            left.remove(guess)
            gone.append(f"{folder.path} has no tensor {name}, but {guess} of its shape; rename that one.")
    yield from shown(gone)
    yield from shown(
        [f"{folder.path} has the tensor {name}, which {family.class_name} has not; it cannot be kept." for name in left]
    )
