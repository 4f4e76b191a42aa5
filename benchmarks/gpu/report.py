"""The record of a check: a JSON file and the same as a Markdown table beside it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu.workplace import ROOT, Line

PACKAGES = ("torch", "megatron-core", "triton", "transformers", "numpy", "safetensors")


class Report:
    """What is known so far; written after every line, so that an aborted check leaves what it had.

    A later check of the same device on the same day replaces the parts that it runs and keeps the others.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], *, date: str) -> None:
        device = re.sub(r"[^a-z0-9]+", "-", str(facts["device"]).lower()).strip("-")
        self.path = folder / f"{device}-{date}.json"
        self.facts = {**facts, "date": date}
        self.parts: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            self.parts = json.loads(self.path.read_text(encoding="utf-8"))["parts"]

    def begin(self, part: str) -> None:
        """A part starts; what an earlier check said of it goes."""
        self.parts[part] = {"passed": False, "seconds": None, "lines": []}

    def add(self, part: str, line: Line) -> None:
        """One more line of a part."""
        self.parts[part]["lines"].append(asdict(line))
        self.write()

    def end(self, part: str, seconds: float) -> None:
        """A part is over; it passed when it said something and nothing it said failed."""
        lines = self.parts[part]["lines"]
        self.parts[part] |= {"passed": bool(lines) and all(line["passed"] for line in lines), "seconds": seconds}
        self.write()

    def has_passed(self, parts: list[str]) -> bool:
        """Whether all of these parts passed."""
        return all(self.parts[part]["passed"] for part in parts)

    def write(self) -> None:
        """Both files."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({**self.facts, "parts": self.parts}, indent=2) + "\n", encoding="utf-8")
        self.path.with_suffix(".md").write_text(self.table(), encoding="utf-8")

    def table(self) -> str:
        """Everything as Markdown."""
        versions = ", ".join(f"{name} {version}" for name, version in self.facts["versions"].items())
        rows = [
            f"# {self.facts['device']}, {self.facts['date']}",
            "",
            f"`{self.facts['command']}`, commit {self.facts['commit'] or 'unknown'}. {versions}.",
            "",
            "| part | check | outcome | |",
            "|---|---|---|---|",
        ]
        for part, record in self.parts.items():
            for line in record["lines"]:
                verdict = "ok" if line["passed"] else "**failed**"
                rows.append(f"| {part} | {_cell(line['check'])} | {_cell(line['outcome'])} | {verdict} |")
            if not record["lines"]:
                rows.append(f"| {part} | | it was cut off | **failed** |")
        seconds = sum(record["seconds"] or 0.0 for record in self.parts.values())
        return "\n".join([*rows, "", f"Together {seconds:.0f} s.", ""])


def versions_here() -> dict[str, str]:
    """Python and the packages that matter, where they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit_here() -> str | None:
    """The commit of the working tree, with + where files differ from it; None without git."""
    try:
        answers = [
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return answers[0] + ("+" if answers[1] else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
