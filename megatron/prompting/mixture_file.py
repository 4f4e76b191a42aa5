"""The YAML files of mixtures and of held-out tasks: their names, and what all of them have in common.

Names without ".yaml" are files of this package; others are paths, which count from the folder of the file that names
them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from megatron.basics.errors import UserError, nearest
from megatron.prompting.hub_names import RULE, is_name, is_path
from megatron.prompting.strict_yaml import read_yaml
from megatron.prompting.template import short_repr

SHIPPED = Path(__file__).parent / "mixtures"


def is_file(name: str) -> bool:
    """Whether a name is that of a file of one's own, and not of one of this package."""
    return name.endswith((".yaml", ".yml"))


def named_in(file: str, other: Any) -> str:
    """What a file calls another one, as seen from here: a mixture is the same from wherever a command starts."""
    return str(Path(file).parent / str(other)) if is_file(str(other)) else str(other)


def identity_of(name: str) -> str:
    """The same for all names of a file."""
    return os.path.realpath(name) if is_file(name) else name


def content_of(name: str) -> dict[str, Any]:
    """The mapping of a file; raises UserError for one that is not there, and for what is none."""
    path = Path(name) if is_file(name) else SHIPPED / f"{name}.yaml"
    if not os.path.exists(path):  # unlike Path.exists, False for names that no file can have
        shipped = sorted(known.stem for known in SHIPPED.glob("*.yaml"))
        raise UserError(
            f"{name} is neither a YAML file nor one of {', '.join(shipped)};{nearest(name, shipped)} check the name."
        )
    content = read_yaml(path, "a mixture or a list of tasks")
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a mapping; see megatron/prompting/mixtures/t0.yaml for the form.")
    return content


def list_of(content: dict[str, Any], key: str, name: str) -> list[dict[str, Any]]:
    """The mappings under a key."""
    entries = content.get(key)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{key} of {name} is not a list of mappings like {{path: glue, configuration: mrpc}}.")
    return entries


def hub_name(entry: dict[str, Any], name: str) -> tuple[str, str | None]:
    """Path and configuration of an entry."""
    path, configuration = entry.get("path"), entry.get("configuration")
    if not isinstance(path, str) or not isinstance(configuration, str | None):
        raise UserError(
            f"path or configuration of an entry of {name} is not text: {short_repr(entry)}; write it in quotes."
        )
    if not is_path(path) or not (configuration is None or is_name(configuration)):
        raise UserError(
            f"{name} has a data set with the path {short_repr(path)} and the configuration "
            f"{short_repr(configuration)}; names have {RULE}, and a path slashes between them."
        )
    return path, configuration


def refuse_unknown(entry: dict[str, Any], known: set[str], name: str) -> None:
    """Raise UserError for a key that is not known."""
    for key in entry:
        if key not in known:
            known_keys = ", ".join(sorted(known))
            raise UserError(
                f"{name} has {str(key)[:60]}, which is not known;{nearest(str(key)[:60], known)} Known: {known_keys}."
            )
