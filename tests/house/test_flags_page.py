"""docs/flags.md is what the options say; a new flag is a conscious change of both."""

from __future__ import annotations

from pathlib import Path

from megatron.basics.option import flag_of
from megatron.cli.flags_page import PAGE, flags_page, write_flags_page
from megatron.cli.run_config import SECTIONS
from megatron.cli.values import field_types

MOST_FLAGS = 130


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == flags_page(), "run `python -m megatron.cli.flags_page`"


def test_the_page_has_every_flag_and_every_flag_a_row() -> None:
    flags = {flag_of(name) for options in SECTIONS.values() for name in field_types(options)}
    rows = {line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")}
    assert rows == flags


def test_a_person_can_still_read_them_all() -> None:
    assert sum(len(field_types(options)) for options in SECTIONS.values()) <= MOST_FLAGS


def test_writing_the_page(tmp_path: Path) -> None:
    write_flags_page(tmp_path / "flags.md")
    assert (tmp_path / "flags.md").read_text() == flags_page()
