"""docs/flags.md is what the commands take; a new flag is a conscious change of both."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.cli.flags_page import COMMANDS, PAGE, WITH_RUN_SETTINGS, flags_page, write_flags_page
from megatron.cli.run_config import SECTIONS
from megatron.cli.values import field_types

ROOT = PAGE.parents[1]
MOST_FLAGS = 130
NAMED_IN_THE_TEXT = {"--help", "--config", "--objective"}


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == flags_page(), "run `python -m megatron.cli.flags_page`"


def test_every_script_with_a_command_line_is_on_the_page() -> None:
    scripts = [*ROOT.glob("*.py"), *(ROOT / "tools").glob("*.py")]
    with_flags = {str(path.relative_to(ROOT)) for path in scripts if "megatron.cli." in path.read_text()}
    assert with_flags == {script for command in COMMANDS for script in command.scripts}
    headings = re.findall(r"^## (.+\.py)$", PAGE.read_text(), flags=re.MULTILINE)
    assert with_flags == {script for heading in headings for script in heading.split(", ")}


@pytest.mark.parametrize("script", [script for command in COMMANDS for script in command.scripts])
def test_the_page_has_every_flag_of_a_script_and_every_flag_a_row(script: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, script, "--help"]
    text = subprocess.run(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    flags = set(re.findall(r"^  (?:-h, )?(--[a-z0-9-]+)", text, flags=re.MULTILINE)) - NAMED_IN_THE_TEXT
    parts = PAGE.read_text().split("\n## ")
    part = next(part for part in parts if script in part.splitlines()[0].split(", "))
    if WITH_RUN_SETTINGS in part:
        part += next(part for part in parts if part.startswith("pretrain_gpt.py"))
    rows = [line.split("`")[1] for line in part.splitlines() if line.startswith("| `")]
    assert set(rows) - NAMED_IN_THE_TEXT == flags and len(rows) == len(set(rows)) > 0


def test_a_person_can_still_read_them_all() -> None:
    assert sum(len(field_types(options)) for options in SECTIONS.values()) <= MOST_FLAGS


def test_writing_the_page(tmp_path: Path) -> None:
    write_flags_page(tmp_path / "flags.md")
    assert (tmp_path / "flags.md").read_text() == flags_page()
