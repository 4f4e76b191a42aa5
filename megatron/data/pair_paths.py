"""The files of a data set of examples, by the prefix that names them. Imports the standard library alone."""

from __future__ import annotations

import os

PAIR_SUFFIXES = ("_inputs", "_targets")  # of the prefixes of its two token files
END = 1  # token behind the targets of an example, which is in no file
REMAKE = "make both anew with tools/prepare_tasks.py."


def pair_fault(prefix: str) -> str | None:
    """What is wrong with the files of a data set, the rest of a sentence that begins with its prefix."""
    parts, missing = _parts_of(prefix)
    if not missing:
        return None
    file = prefix.removesuffix(".bin").removesuffix(".idx")
    stem = next((file.removesuffix(suffix) for suffix in PAIR_SUFFIXES if file.endswith(suffix)), file)
    if stem != prefix:
        others, missing_there = _parts_of(stem)
        if not missing_there:
            what = "part" if stem == file else "one half"
            return f"is {what} of a data set; name it by its prefix, {stem}."
        if len(missing_there) < len(others):
            return f"is part of a data set that lacks {' and '.join(missing_there)}; check the path, or {REMAKE}"
    if len(missing) == len(parts) and os.path.isfile(f"{file}.bin"):
        return "is text and not inputs with targets, which --objective multitask reads; see tools/prepare_tasks.py."
    return f"lacks {' and '.join(missing)}; check the path, or {REMAKE}"


def _parts_of(prefix: str) -> tuple[list[str], list[str]]:
    """(all files of a data set, those that are not there)."""
    parts = [f"{prefix}{suffix}{kind}" for suffix in PAIR_SUFFIXES for kind in (".bin", ".idx")]
    return parts, [part for part in parts if not os.path.isfile(part)]
