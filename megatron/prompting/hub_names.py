"""What data sets, their configurations and their splits may be called: names of files that stay in their folder."""

from __future__ import annotations

import re

RULE = "letters, digits, _, . and -"
_NAME = re.compile(r"(?!\.\.?$)[\w.-]+")


def is_name(text: str) -> bool:
    """Of a configuration or a split: no slash, and neither `.` nor `..`."""
    return _NAME.fullmatch(text) is not None


def is_path(text: str) -> bool:
    """Of a data set: names between slashes, e.g. `allenai/sciq`."""
    return all(map(is_name, text.split("/")))
