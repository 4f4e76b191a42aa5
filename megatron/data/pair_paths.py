"""The files of a data set of examples, by the prefix that names them. Imports the standard library alone."""

from __future__ import annotations

import os

PAIR_SUFFIXES = ("_inputs", "_targets")  # of the prefixes of its two token files
END = 1  # token behind the targets of an example, which is in no file
REMAKE = "make both anew with tools/prepare_tasks.py."


def pair_fault(prefix: str) -> str | None:
    """What is wrong with the files of a data set, the rest of a sentence that begins with its prefix."""
    parts = [part for suffix in PAIR_SUFFIXES for part in (f"{prefix}{suffix}.bin", f"{prefix}{suffix}.idx")]
    missing = [part for part in parts if not os.path.isfile(part)]
    stem = next((prefix.removesuffix(suffix) for suffix in PAIR_SUFFIXES if prefix.endswith(suffix)), prefix)
    if missing and stem != prefix and pair_fault(stem) is None:
        return f"is one half of a data set; name both by their prefix, {stem}."
    if len(missing) == len(parts) and os.path.isfile(f"{prefix}.bin"):
        return "is text and not inputs with targets, which --objective multitask reads; see tools/prepare_tasks.py."
    return f"lacks {' and '.join(missing)}; check the path, or {REMAKE}" if missing else None
