"""Examples as lines of JSON: one object of columns a line, in a plain or a gzipped file."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron.basics.errors import UserError

LONGEST_LINE = 50_000_000  # characters; compressed, a megabyte of a file may be a gigabyte of one line
DEEPEST = 100  # levels of lists and objects in an example: far more than any has, far fewer than Python can follow


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file, plain or .gz; raises UserError with the number of the line at fault."""
    for number, line in enumerate(lines_of(path), start=1):
        try:
            example = json.loads(line)
            is_deep = line.count("[") + line.count("{") > DEEPEST and _is_deeper(example, DEEPEST)
        except ValueError as error:
            raise UserError(f"--data-dir: line {number} of {path} is not JSON ({error}); mend the file.") from error
        except RecursionError:
            is_deep = True
        if is_deep:
            raise UserError(
                f"--data-dir: line {number} of {path} is nested more than {DEEPEST} deep, which no example is; mend "
                "the file."
            )
        if not isinstance(example, dict):
            raise UserError(f"--data-dir: line {number} of {path} is not an object of columns; mend the file.")
        yield example


def _is_deeper(value: Any, levels: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _is_deeper(part, levels - 1) for part in parts)


def lines_of(path: Path) -> Iterator[str]:
    """The lines as they are; raises UserError behind the last one that can be read, and for one that is too long."""
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise UserError(
                        f"--data-dir: line {number} of {path} has more than {LONGEST_LINE:,} characters, which no "
                        "example has; write each example into a line of its own."
                    )
                yield line
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"--data-dir: {path} cannot be read behind line {number} ({error}); write it anew.") from error
