"""`--config run.yaml`: a flat mapping of flag names, checked like the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megatron.basics.errors import UserError, nearest_name
from megatron.cli.values import FieldType, WrongValue, from_native


def read_config_file(path: str) -> dict[str, Any]:
    """The mapping in a YAML file, keys with underscores. Raises UserError for a file that holds anything else."""
    import yaml  # only when asked for: --help and plain command lines do without it

    try:
        with open(path, encoding="utf-8") as file:
            loader = yaml.SafeLoader(file.read())
        node = loader.get_single_node()
        content = loader.construct_document(node) if node is not None else {}
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"--config {path} is not readable YAML: {_first_fault(error)}.") from error
    if not isinstance(content, dict):
        raise UserError(f"--config {path} must hold lines of FLAG: VALUE, not {type(content).__name__}.")
    keys = [str(key.value).replace("-", "_") for key, _ in node.value] if node is not None else []
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise UserError(*(f"--config {path} gives {key} twice; keep one." for key in twice))
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def convert_config(
    path: str, content: Mapping[str, Any], types: Mapping[str, FieldType]
) -> tuple[dict[str, Any], list[str], set[str]]:
    """Values by field, one sentence per fault, and the fields that the faults are about."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    doubtful: set[str] = set()
    for key, value in content.items():
        if key not in types:
            guess = nearest_name(key, types)
            doubtful.add(guess or key)
            faults.append(
                f"{path}: {key} is not a known setting; {f'did you mean {guess}?' if guess else 'see --help.'}"
            )
            continue
        try:
            values[key] = from_native(types[key], value)
        except WrongValue as fault:
            faults.append(f"{path}: {key} {fault}.")
            doubtful.add(key)
    return values, faults, doubtful


def _first_fault(error: Exception) -> str:
    """Where and what, in one line, of PyYAML's several."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    what = getattr(error, "problem", None) or " ".join(str(error).split()) or type(error).__name__
    return f"{where}{what}"
