"""Rules of the house that a machine can keep: sizes, names, writes, documentation."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.sources import PACKAGE, ROOT, dotted, name_of, product_files, tree_of

BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "tools"}
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_SCRIPT = 400, 80, 40

# Who may write a file without atomic_files, and why.
MAY_WRITE = {
    "megatron/basics/atomic_files.py": "it is the one that writes",
    "megatron/basics/errors.py": "to nowhere, what is left when a pipe is closed",
    "megatron/basics/lock_file.py": "a lock is held open, never read as a whole",
    "megatron/cli/written_texts.py": "appends lines, and takes back what a full disk cut",
    "megatron/checkpoint/shards.py": "into a folder that is renamed when all of it is on the disk",
    "megatron/loop/hooks/metrics_file.py": "appends lines, and cuts what is torn",
    "tools/make_environment.py": "runs before the package can be imported",
}
WRITING_CALLS = {"write_text", "write_bytes", "tofile", "memmap"}
WRITING_FUNCTIONS = {"save_file", "torch.save", "np.save", "np.savez", "pickle.dump", "numpy.save"}


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", product_files(), ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    for function in functions_of(path):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= LONGEST_FUNCTION, f"{function.name} has {length} lines"


def test_names_say_what_a_file_is() -> None:
    for path in product_files():
        assert path.stem not in BANNED_NAMES, name_of(path)


def test_every_test_file_has_a_name_of_its_own() -> None:
    """Test folders are no packages: of two modules with one name pytest collects neither."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_entry_scripts_are_a_docstring_and_one_call() -> None:
    scripts = [path for path in ROOT.glob("*.py") if path.name not in ("setup.py", "conftest.py")]
    for path in scripts:
        assert len(path.read_text().splitlines()) <= LONGEST_SCRIPT, name_of(path)
        assert ast.get_docstring(tree_of(path)), name_of(path)
        assert not [node for node in tree_of(path).body if isinstance(node, ast.ClassDef)], name_of(path)


def test_files_are_written_whole_or_not_at_all() -> None:
    for path in product_files():
        if name_of(path) in MAY_WRITE or path.is_relative_to(ROOT / "benchmarks") or path.name == "setup.py":
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call):
                assert not writes(node), f"{name_of(path)}:{node.lineno} writes without basics/atomic_files.py"


def writes(call: ast.Call) -> bool:
    """Whether a call opens a file for writing, as far as a reader of the line can tell."""
    name = dotted(call.func)
    if name in WRITING_FUNCTIONS or (isinstance(call.func, ast.Attribute) and call.func.attr in WRITING_CALLS):
        return name.split(".")[-1] != "memmap" or mode_of(call, 2) not in ("r", "c")
    if name == "os.open":
        return any(dotted(node) in ("os.O_WRONLY", "os.O_RDWR", "os.O_CREAT") for node in ast.walk(call))
    if name == "open" or name.endswith((".open", ".fdopen")):
        path_comes_first = name in ("open", "io.open", "os.fdopen", "gzip.open")
        return bool(set(mode_of(call, 1 if path_comes_first else 0)) & set("wax+"))
    return False


def mode_of(call: ast.Call, position: int) -> str:
    """The literal `mode` of a call, or an empty string."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] or call.args[position : position + 1]
    return str(given[0].value) if given and isinstance(given[0], ast.Constant) else ""


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("open(path)", False),
        ("open(path, 'rb')", False),
        ("open(path, 'w', encoding='utf-8')", True),
        ("open(path, mode='ab')", True),
        ("open(path, 'rb+')", True),
        ("save_file(tensors, path)", True),
        ("path.open('x')", True),
        ("path.write_text('a')", True),
        ("np.memmap(path, mode='r')", False),
        ("np.memmap(path, np.int32, 'w+')", True),
        ("os.open(folder, os.O_RDONLY)", False),
        ("os.open(path, os.O_WRONLY | os.O_CREAT)", True),
        ("torch.save(state, path)", True),
    ],
)
def test_the_check_itself_sees_writes(line: str, answer: bool) -> None:
    call = ast.parse(line).body[0].value  # type: ignore[attr-defined]
    assert writes(call) == answer


def test_everything_public_is_documented_and_typed() -> None:
    for path in product_files():
        if not path.is_relative_to(PACKAGE):
            continue
        if path.name != "__init__.py":
            assert ast.get_docstring(tree_of(path)), name_of(path)
        for function in functions_of(path):
            assert function.returns is not None or function.name == "__init__", f"{name_of(path)}: {function.name}"


def test_nothing_is_left_for_later() -> None:
    words = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"]) + r")\b")
    for path in product_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            assert not words.search(line), f"{name_of(path)}:{number}"


def test_every_option_says_what_it_does() -> None:
    for path in PACKAGE.rglob("options.py"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and dotted(node.func) == "option":
                text = node.args[1]
                assert isinstance(text, ast.Constant) and str(text.value).strip().endswith("."), (
                    f"{name_of(path)}:{node.lineno}: the help of an option is a sentence"
                )
