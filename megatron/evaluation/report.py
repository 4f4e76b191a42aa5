"""Results of evaluations as people read them: Markdown, HTML, a bar chart; several runs side by side."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from megatron.evaluation import t0_differences, t0_report
from megatron.evaluation.eai_eval import BY_TASK, NUM_AGGREGATED, EaiMean, eai_mean, standard_error_name
from megatron.evaluation.random_accuracy import METRICS_OF_CHOICES
from megatron.evaluation.results import NOT_THERE, Results, number, with_error
from megatron.evaluation.t0_report import has_t0

CHART_FILE = "results.png"
SHARES = ("acc", "exact_match", "em", "f1")  # beginnings of the names of metrics between 0 and 1


@dataclass(frozen=True)
class Row:
    """One metric of one task: a (value, standard error) for each run; NaN where it is not known."""

    task: str
    metric: str
    random: float
    values: tuple[tuple[float, float], ...]


def has_tasks(runs: Sequence[Results]) -> bool:
    """Whether any of the runs was scored on tasks of lm-eval, be it that all of their data were missing."""
    return any(run.tasks or run.own.get("missing") for run in runs) or not has_t0(runs)


def rows_of(runs: Sequence[Results]) -> list[Row]:
    """All metrics of all tasks, in the order in which they first appear."""
    keys = dict.fromkeys((task, metric) for run in runs for task, metric in _metrics(run))
    return [
        Row(task, metric, _random(runs, task, metric), tuple(_value(run, task, metric) for run in runs))
        for task, metric in keys
    ]


def markdown(runs: Sequence[Results]) -> str:
    """The whole report."""
    lines = ["# Zero-shot evaluation" if _is_zero_shot(runs) else "# Evaluation"]
    if has_tasks(runs):
        lines += ["", *_markdown_table(_table(runs))]
        lines += ["", "Values are followed by their standard errors. `random` is what guessing reaches."]
    if has_t0(runs):
        lines += ["", f"## {t0_report.TITLE}", "", *_markdown_table(t0_report.t0_table(runs))]
        lines += ["", t0_report.EXPLANATION]
        differences = [*t0_differences.t0_differences(runs)]
        if differences:
            lines += ["", t0_differences.explanation(runs), "", *(f"- {line}" for line in differences)]
    for run in runs:
        lines += ["", f"**{run.name}**", "", *(f"- {note}" for note in _notes(run))]
    return "\n".join(lines) + "\n"


def html_page(runs: Sequence[Results]) -> str:
    """The same report as one page without any other file than the chart beside it."""
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Evaluation</title>',
        "<style>body{font:15px sans-serif;max-width:70em;margin:2em auto}table{border-collapse:collapse}"
        "td,th{padding:.3em .8em;border-bottom:1px solid #ddd;text-align:right}"
        "td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}</style>",
        f"<h1>{'Zero-shot evaluation' if _is_zero_shot(runs) else 'Evaluation'}</h1>",
    ]
    if has_tasks(runs):
        explanation = "Values are followed by their standard errors; <em>random</em> is what guessing reaches."
        parts += _html_section(_table(runs), explanation, CHART_FILE)
    if has_t0(runs):
        parts.append(f"<h2>{t0_report.TITLE}</h2>")
        parts += _html_section(t0_report.t0_table(runs), html.escape(t0_report.EXPLANATION), t0_report.CHART_FILE)
        differences = [*t0_differences.t0_differences(runs)]
        if differences:
            parts += [f"<p>{html.escape(t0_differences.explanation(runs))}</p>", _html_list(differences)]
    for run in runs:
        parts.append(f"<h2>{html.escape(run.name)}</h2>{_html_list(_notes(run))}")
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
    for bar, run in enumerate(runs):
        places = [place + (bar - (len(runs) - 1) / 2) * width for place in range(len(shown))]
        heights = [row.values[bar][0] for row in shown.values()]
        errors = [row.values[bar][1] for row in shown.values()]
        axes.bar(places, heights, width, yerr=errors, label=run.name, capsize=2, color=f"C{bar}")
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
        yield [row.task, row.metric, number(row.random), *(with_error(*value) for value in row.values)]
    means = [_mean(run) for run in runs]
    if any(means):
        randoms = {number(mean.random) for mean in means if mean}
        random = randoms.pop() if len(randoms) == 1 else NOT_THERE
        cells = [_mean_cell(mean) for mean in means]
        yield ["EAI-Eval mean", "acc", random, *cells]


def _mean(run: Results) -> EaiMean | None:
    return eai_mean(run.tasks) if run.own.get("eai_eval") else None


def _mean_cell(mean: EaiMean | None) -> str:
    if mean is None:
        return NOT_THERE
    part = "" if mean.is_whole else f" (over {len(mean.scored)} of {NUM_AGGREGATED})"
    return with_error(mean.accuracy, mean.standard_error) + part


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
    yield from t0_report.t0_notes(run)
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


def _markdown_table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Its lines; the columns behind the second one are numbers."""
    for place, cells in enumerate(rows):
        yield _markdown_line(cells)
        if place == 0:
            yield "|---|---|" + "---:|" * (len(cells) - 2)


def _html_section(rows: Iterable[Sequence[str]], explanation: str, chart: str) -> Iterator[str]:
    """A table, what its numbers are, and the chart in the file beside the page."""
    head, *body = rows
    yield "<table><thead>" + _html_line(head, "th") + "</thead><tbody>"
    yield from (_html_line(cells, "td") for cells in body)
    yield f"</tbody></table><p>{explanation}</p>"
    yield f'<p><img src="{chart}" alt="bar chart of the accuracies" style="max-width:100%"></p>'


def _html_list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _html_line(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
