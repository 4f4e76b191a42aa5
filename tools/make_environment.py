"""Bring .venv up to date: pinned packages, this checkout as an editable install, the native ops of csrc/.

Run by `make setup` under any Python 3.11 or newer; needs nothing but the standard library. What was done is noted in
.venv, so that a second call with nothing changed returns at once. A call that is killed leaves a mark: the next one
starts from an empty environment rather than from packages that may be half there (pip's cache makes up for it).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
RECORD = ENVIRONMENT / "triarch-setup.json"
UNFINISHED = ENVIRONMENT / "triarch-setup.unfinished"
PACKAGE_FILES = ("requirements.txt", "requirements-dev.txt", "constraints.txt", "pyproject.toml", "setup.py")
NATIVE_SWITCHES = ("CXX", "NVCC", "TRIARCH_NO_NATIVE", "TORCH_CUDA_ARCH_LIST")


class StepFailed(Exception):
    """One sentence: which step failed, and what to do."""


def main() -> int:
    """Make or update .venv; 0 when it is ready."""
    with open(ROOT / ".venv.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two `make` at once would install into one environment
        try:
            update()
        except StepFailed as fault:
            print(f"error: {fault}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("setup: stopped; `make setup` starts again.", file=sys.stderr)
            return 130
    return 0


def update() -> None:
    """Do the steps that the record in .venv does not show as done. Raises StepFailed."""
    started = time.monotonic()
    # An environment holds absolute paths and one interpreter's packages: moved or made otherwise, it is made anew.
    wanted = {"place": f"{ROOT} {sys.version}", "packages": digest(ROOT / name for name in PACKAGE_FILES)}
    wanted["native"] = digest(sorted((ROOT / "csrc").rglob("*.*")), wanted["packages"], *compilers())
    done = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if {**wanted, "libraries": built_libraries()} == done and PYTHON.exists():
        return
    if UNFINISHED.exists() or wanted["place"] != done.get("place") or not PYTHON.exists():
        say(f"making .venv with Python {sys.version.split()[0]}")
        run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], "the virtual environment could not be made")
        done = {}
    if wanted["packages"] != done.get("packages"):
        UNFINISHED.touch()
        install_packages()
        record({"place": wanted["place"], "packages": wanted["packages"]})
        UNFINISHED.unlink()
    run([str(PYTHON), "setup.py", "--quiet", "build_ext", "--inplace"], "csrc/ could not be built (see above)")
    record({**wanted, "libraries": built_libraries()})
    say(f"ready in .venv ({time.monotonic() - started:.0f} s)")


def install_packages() -> None:
    """The pinned packages, and this checkout."""
    say("installing the packages of requirements-dev.txt (the first time takes minutes)")
    quiet = [] if sys.stderr.isatty() else ["-qq"]  # errors are still shown
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", *quiet]
    advice = "pip says above why; `make setup` tries again"
    pinned = ["-r", "requirements-dev.txt", "-c", "constraints.txt"]
    run([*pip, "--no-compile", *pinned], f"the packages could not be installed: {advice}")
    # pip would compile them on one core. Packages ship templates that are no valid Python: its exit code says nothing.
    subprocess.run([str(PYTHON), "-m", "compileall", "-qq", "-j0", str(ENVIRONMENT / "lib")])
    # compat: a plain path entry. The default maps each sub-package by name and would not see a new one.
    editable = ["--no-deps", "--no-build-isolation", "--config-settings", "editable_mode=compat", "-e", "."]
    # pip would hide what the native build says; it is a step of its own.
    run([*pip, *editable], f"this checkout could not be installed: {advice}", TRIARCH_NO_NATIVE="1")


def built_libraries() -> list[str]:
    """What of csrc/ is built; a library that somebody deleted leads to a new build."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "megatron").glob("*/*.so"))


def record(done: dict[str, str | list[str]]) -> None:
    """Note what is done, for the next call; the old note or the whole new one, never half of it."""
    unfinished = RECORD.with_suffix(".tmp")
    unfinished.write_text(json.dumps(done, indent=2) + "\n")
    unfinished.replace(RECORD)


def compilers() -> list[str]:
    """What the native build depends on outside the checkout: a compiler installed later leads to a new build."""
    return [str(shutil.which(name)) for name in ("c++", "g++", "nvcc")] + [
        os.environ.get(name, "") for name in NATIVE_SWITCHES
    ]


def digest(files: Iterable[Path], *more: str) -> str:
    """One digest of names and contents of files, and of further strings."""
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    for text in more:
        total.update(f"{text}\0".encode())
    return total.hexdigest()


def run(command: list[str], failure: str, **variables: str) -> None:
    """Run one step in the checkout, with some more environment variables. Raises StepFailed with `failure`."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    if subprocess.run(command, cwd=ROOT, env=environment | variables).returncode:
        raise StepFailed(f"{failure}.")


def say(line: str) -> None:
    """One line of progress."""
    print(f"setup: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
