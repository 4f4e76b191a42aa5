"""Write a small English corpus from the documentation that every Python carries: docstrings and `pydoc_data.topics`.

    python examples/quickstart/stdlib_corpus.py --output-folder corpus

writes corpus/train.jsonl and corpus/valid.jsonl, about 2 MB in all, one document a line: {"text": ..., "source": ...}.
The docstrings of a file are one document, a topic is one; what stands in several files is taken once. Files go to
training or validation by a hash of their name, so that near copies within a file never part. The text is under Python's
licence and differs between versions of Python.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.errors import UserError, exit_on_user_error

LEFT_OUT_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idlelib", "pydoc_data"}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def documents(library: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of each topic and each file with docstrings, in the order of names; no docstring comes twice."""
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        yield f"topics/{name}", text.strip()
    seen: set[str] = set()
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library)
        if LEFT_OUT_FOLDERS.isdisjoint(name.parts):
            fresh = [text for text in docstrings(path) if text not in seen]
            seen.update(fresh)
            if fresh:
                yield name.as_posix(), "\n\n".join(dict.fromkeys(fresh))


def docstrings(path: Path) -> list[str]:
    """The docstrings of a source file, none if it is not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in other people's strings
            tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError, OSError):
        return []
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, DOCUMENTED))
    return [text for text in found if text]


def is_validation(name: str, percent: int) -> bool:
    """Whether a document belongs to validation; a function of its name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 100 < percent


def main() -> None:
    """Run the command. Raises UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-folder", required=True, help="Where train.jsonl and valid.jsonl go.")
    parser.add_argument("--validation-percent", type=int, default=3, help="Share of the files. Default: %(default)s.")
    arguments = parser.parse_args()
    if not 1 <= arguments.validation_percent <= 99:
        raise UserError(f"--validation-percent {arguments.validation_percent} is not within 1 to 99.")
    folder = Path(arguments.output_folder)
    sizes = {"train": [0, 0], "valid": [0, 0]}
    with atomic_writer(folder / "train.jsonl", "w") as train, atomic_writer(folder / "valid.jsonl", "w") as valid:
        for name, text in documents(Path(sysconfig.get_path("stdlib"))):
            part = "valid" if is_validation(name, arguments.validation_percent) else "train"
            line = json.dumps({"text": text, "source": name}, ensure_ascii=False)
            (valid if part == "valid" else train).write(line + "\n")
            sizes[part][0] += 1
            sizes[part][1] += len(text.encode())
    for part, (count, size) in sizes.items():
        print(f"{folder / part}.jsonl: {count:,} documents, {size / 1e6:.2f} MB of text")


if __name__ == "__main__":
    exit_on_user_error(main)
