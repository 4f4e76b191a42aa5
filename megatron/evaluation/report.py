"""Results of evaluations as people read them: Markdown, HTML, a bar chart; several runs side by side."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.basics.errors import UserError
from megatron.evaluation.eai_eval import BY_TASK, NUM_AGGREGATED, EaiMean, eai_mean, standard_error_name
from megatron.evaluation.random_accuracy import METRICS_OF_CHOICES

OWN_ENTRY = "triarch"  # what we add to lm-eval's results stands under this key
NOT_THERE = "-"
SHARES = ("acc", "exact_match", "em", "f1")  # beginnings of the names of metrics between 0 and 1


@dataclass(frozen=True)
class Results:
    """The results of one evaluation. name: of the model in tables. content: as lm-eval writes it, with our entry."""

    name: str
    content: Mapping[str, Any]

    @property
    def own(self) -> Mapping[str, Any]:
        """Scoring rule, lineage, checkpoint, missing tasks; empty for results of lm-eval itself."""
        entry: Mapping[str, Any] = self.content.get(OWN_ENTRY, {})
        return entry

    @property
    def tasks(self) -> Mapping[str, Mapping[str, Any]]:
        """Metrics by task."""
        found: Mapping[str, Mapping[str, Any]] = self.content["results"]
        return found


@dataclass(frozen=True)
class Row:
    """One metric of one task: a (value, standard error) for each run; NaN where it is not known."""

    task: str
    metric: str
    random: float
    values: tuple[tuple[float, float], ...]


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
    if not isinstance(own, dict):
        yield f"`{OWN_ENTRY}`"
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


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def rows_of(runs: Sequence[Results]) -> list[Row]:
    """All metrics of all tasks, in the order in which they first appear."""
    keys = dict.fromkeys((task, metric) for run in runs for task, metric in _metrics(run))
    return [
        Row(task, metric, _random(runs, task, metric), tuple(_value(run, task, metric) for run in runs))
        for task, metric in keys
    ]


def markdown(runs: Sequence[Results]) -> str:
    """The whole report."""
    lines = ["# Zero-shot evaluation" if _is_zero_shot(runs) else "# Evaluation", ""]
    lines += [_markdown_line(cells) for cells in _table(runs)]
    lines.insert(3, "|---|---|" + "---:|" * (1 + len(runs)))
    lines += ["", "Values are followed by their standard errors. `random` is what guessing reaches."]
    for run in runs:
        lines += ["", f"**{run.name}**", "", *(f"- {note}" for note in _notes(run))]
    return "\n".join(lines) + "\n"


def html_page(runs: Sequence[Results]) -> str:
    """The same report as one page without any other file than the chart beside it."""
    head, *body = [*_table(runs)]
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Evaluation</title>',
        "<style>body{font:15px sans-serif;max-width:70em;margin:2em auto}table{border-collapse:collapse}"
        "td,th{padding:.3em .8em;border-bottom:1px solid #ddd;text-align:right}"
        "td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}</style>",
        f"<h1>{'Zero-shot evaluation' if _is_zero_shot(runs) else 'Evaluation'}</h1>",
        "<table><thead>" + _html_line(head, "th") + "</thead><tbody>",
        *(_html_line(cells, "td") for cells in body),
        "</tbody></table>",
        "<p>Values are followed by their standard errors; <em>random</em> is what guessing reaches.</p>",
        '<p><img src="results.png" alt="bar chart of the accuracies" style="max-width:100%"></p>',
    ]
    for run in runs:
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in _notes(run))
        parts.append(f"<h2>{html.escape(run.name)}</h2><ul>{notes}</ul>")
    return "\n".join(parts) + "</html>\n"


def bar_chart(runs: Sequence[Results]) -> Any:
    """A matplotlib figure: each task's first share of right answers, error bars, a line at its random baseline.

    Of groups of tasks the groups alone are shown.
    """
    from matplotlib.figure import Figure  # not pyplot, which looks for a display

    members = {task for run in runs for tasks in run.content.get("group_subtasks", {}).values() for task in tasks}
    shown: dict[str, Row] = {}
    for row in rows_of(runs):
        if row.task not in members and row.metric.startswith(SHARES):
            shown.setdefault(row.task, row)
    width = 0.8 / len(runs)
    figure = Figure(figsize=(max(5.0, 1.5 + 0.7 * len(shown) + 0.15 * len(shown) * len(runs)), 4.2), layout="tight")
    axes = figure.subplots()
    for number, run in enumerate(runs):
        places = [place + (number - (len(runs) - 1) / 2) * width for place in range(len(shown))]
        heights = [row.values[number][0] for row in shown.values()]
        errors = [row.values[number][1] for row in shown.values()]
        axes.bar(places, heights, width, yerr=errors, label=run.name, capsize=2, color=f"C{number}")
    known = [(place, row.random) for place, row in enumerate(shown.values()) if not math.isnan(row.random)]
    if known:
        ends = [(place - 0.45, place + 0.45) for place, _ in known]
        left, right = zip(*ends, strict=True)
        heights = [random for _, random in known]
        axes.hlines(heights, left, right, colors="0.2", linestyles="--", linewidth=1, label="random")
    axes.set_xticks(range(len(shown)), list(shown), rotation=40, ha="right")
    axes.set_xlim(-0.6, max(len(shown), 3) - 0.4)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("accuracy")
    axes.spines[["top", "right"]].set_visible(False)
    if shown:
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(len(runs) + 1, 5))
    return figure


def _table(runs: Sequence[Results]) -> Iterator[list[str]]:
    """Cells of the heading, then of each metric, then of the study's mean where it was asked for."""
    yield ["task", "metric", "random", *(run.name for run in runs)]
    for row in rows_of(runs):
        yield [row.task, row.metric, _number(row.random), *(_with_error(*value) for value in row.values)]
    means = [_mean(run) for run in runs]
    if any(means):
        randoms = {_number(mean.random) for mean in means if mean}
        random = randoms.pop() if len(randoms) == 1 else NOT_THERE
        cells = [_mean_cell(mean) for mean in means]
        yield ["EAI-Eval mean", "acc", random, *cells]


def _mean(run: Results) -> EaiMean | None:
    return eai_mean(run.tasks) if run.own.get("eai_eval") else None


def _mean_cell(mean: EaiMean | None) -> str:
    if mean is None:
        return NOT_THERE
    part = "" if mean.is_whole else f" (over {len(mean.scored)} of {NUM_AGGREGATED})"
    return _with_error(mean.accuracy, mean.standard_error) + part


def _notes(run: Results) -> Iterator[str]:
    """What stands below the table of a run."""
    names = {
        "checkpoint": "checkpoint",
        "lineage": "trained on",
        "dtype": "weights and activations",
        "scoring_rule": "scoring",
        "limit": "at most so many examples of each task",
    }
    for key, text in names.items():
        if run.own.get(key):
            yield f"{text}: {run.own[key]}"
    data_sets = run.own.get("data_sets", {})
    for task, files in run.own.get("data", {}).items():
        replaced = f", in the place of {data_sets[task]}" if task in data_sets else ""
        yield f"data of {task}: {', '.join(files.values())}{replaced}"
    mean = _mean(run)
    if mean is not None and not mean.is_whole:
        yield (
            f"EAI-Eval is not whole: {len(mean.scored)} of {NUM_AGGREGATED} tasks count for the mean, "
            f"{', '.join(mean.missing)} are missing"
        )
    missing: dict[str, list[str]] = {}
    for task, reason in run.own.get("missing", {}).items():
        missing.setdefault(reason, []).append(task)
    for reason, tasks in missing.items():
        yield f"missing: {', '.join(tasks)} ({reason})"


def _metrics(run: Results) -> Iterator[tuple[str, str]]:
    for task, values in run.tasks.items():
        for metric, value in values.items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if "," in metric and "_stderr" not in metric and is_number:
                yield task, metric


def _value(run: Results, task: str, metric: str) -> tuple[float, float]:
    values = run.tasks.get(task, {})
    numbers = (values.get(metric), values.get(standard_error_name(metric)))
    value, error = (float(number) if isinstance(number, (int, float)) else math.nan for number in numbers)
    return value, error


def _random(runs: Sequence[Results], task: str, metric: str) -> float:
    """What guessing reaches: the study's baseline where its list was asked for, else what the choices say."""
    entry = BY_TASK.get(task)
    if entry and entry.metric == metric and any(run.own.get("eai_eval") for run in runs):
        return entry.random
    if metric.partition(",")[0] in METRICS_OF_CHOICES:
        for run in runs:
            if task in run.own.get("random", {}):
                return float(run.own["random"][task])
    return entry.random if entry and entry.metric == metric else math.nan


def _is_zero_shot(runs: Sequence[Results]) -> bool:
    return not any(shots for run in runs for shots in run.content.get("n-shot", {}).values())


def _number(value: float) -> str:
    return NOT_THERE if math.isnan(value) else f"{value:.4f}"


def _with_error(value: float, error: float) -> str:
    return _number(value) if math.isnan(error) else f"{_number(value)} ± {error:.4f}"


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _html_line(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
