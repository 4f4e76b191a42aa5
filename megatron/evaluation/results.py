"""Files of results, and numbers as tables show them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.basics.errors import UserError
from megatron.evaluation.t0_entry_form import damaged_parts

OWN_ENTRY = "triarch"  # what we add to lm-eval's results stands under this key
T0_ENTRY = "t0_eval"  # and the results of T0-Eval under this one
NOT_THERE = "-"


@dataclass(frozen=True)
class Results:
    """The results of one evaluation. name: of the model in tables. content: as lm-eval writes it, with our entries."""

    name: str
    content: Mapping[str, Any]

    @property
    def own(self) -> Mapping[str, Any]:
        """Scoring rule, lineage, checkpoint, missing tasks; empty for results of lm-eval itself."""
        entry: Mapping[str, Any] = self.content.get(OWN_ENTRY, {})
        return entry

    @property
    def tasks(self) -> Mapping[str, Mapping[str, Any]]:
        """Metrics by task of lm-eval."""
        found: Mapping[str, Mapping[str, Any]] = self.content["results"]
        return found

    @property
    def t0(self) -> Mapping[str, Any]:
        """The results of T0-Eval, see `t0_entry.entry_of`; empty where it was not asked for."""
        entry: Mapping[str, Any] = self.content.get(T0_ENTRY, {})
        return entry


def read_results(path: Path) -> Results:
    """A results file of ours or of lm-eval. Raises UserError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a results.json of an evaluation.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); give a results.json of an evaluation.") from error
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise UserError(f"{path} holds no results of lm-eval; give a results.json of an evaluation.")
    damaged = [*_damaged_entries(content)]
    if damaged:
        raise UserError(
            f"{path} holds {', '.join(damaged)} in another form than evaluations write; give a results.json of one."
        )
    return Results(str(content.get(OWN_ENTRY, {}).get("name") or path.parent.name or path.stem), content)


def _damaged_entries(content: Mapping[str, Any]) -> Iterator[str]:
    """Names of the entries that reports read and that hold something else than they should."""
    own = content.get(OWN_ENTRY, {})
    t0 = content.get(T0_ENTRY, {})
    damaged = [name for name, entry in ((OWN_ENTRY, own), (T0_ENTRY, t0)) if not isinstance(entry, dict)]
    if damaged:
        yield from (f"`{name}`" for name in damaged)
        return
    checks: tuple[tuple[Mapping[str, Any], str, Callable[[Any], bool]], ...] = (
        (content, "results", lambda metrics: isinstance(metrics, dict)),
        (content, "n-shot", lambda _: True),
        (content, "group_subtasks", lambda tasks: isinstance(tasks, list) and _are_texts(tasks)),
        (own, "random", lambda chance: isinstance(chance, (int, float))),
        (own, "missing", lambda reason: isinstance(reason, str)),
        (own, "data", lambda files: isinstance(files, dict) and _are_texts(files.values())),
        (own, "data_sets", lambda name: isinstance(name, str)),
    )
    for place, name, is_right in checks:
        values = place.get(name, {})
        if not isinstance(values, dict) or not all(map(is_right, values.values())):
            yield f"`{name}`"
    yield from damaged_parts(t0)


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def number(value: float | None) -> str:
    """Four decimals, or a dash for what is not known."""
    return NOT_THERE if value is None or math.isnan(value) else f"{value:.4f}"


def with_error(value: float | None, error: float | None) -> str:
    """A number and its standard error, where that is known."""
    return number(value) if error is None or math.isnan(error) else f"{number(value)} ± {error:.4f}"
