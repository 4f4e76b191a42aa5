"""The part of a report that T0-Eval fills: a table over runs, notes for each, a chart with the spread over prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from megatron.evaluation.prompt_spread import NORMALISED
from megatron.evaluation.rank_classification import ACCURACY, ACCURACY_PER_TOKEN
from megatron.evaluation.results import NOT_THERE, Results, number, with_error

TITLE = "T0-Eval"
EXPLANATION = (
    "Medians over the prompts of a data set, [lowest to highest], ± standard error. "
    f"{ACCURACY} ranks choices by the sum of their log-probabilities, {ACCURACY_PER_TOKEN} by the mean over their "
    f"tokens; {NORMALISED} is (accuracy - random) / (1 - random). Means are over data sets."
)
CHART_FILE = "t0_eval.png"
SILENT_PROMPTS = {
    "prompts_without_questions": "not counted, because they leave out every example",
    "prompts_without_metrics": "not counted, because they have neither choices nor a metric that is known",
}


def has_t0(runs: Sequence[Results]) -> bool:
    """Whether any of the runs was scored on T0-Eval."""
    return any(run.t0 for run in runs)


def t0_table(runs: Sequence[Results]) -> Iterator[list[str]]:
    """Cells of the heading, of each metric of each data set, and of the means."""
    yield ["data set", "metric", "prompts", "random", *(run.name for run in runs)]
    for task, metric in _keys(runs):
        found = [_metric(run, task, metric) for run in runs]
        prompts = {str(entry["prompts"]) for entry in found if entry}
        random = _common({number(_task(run, task)["random"]) for run in runs if "random" in _task(run, task)})
        shown = random if metric in (ACCURACY, ACCURACY_PER_TOKEN) else NOT_THERE
        yield [task, metric, _common(prompts), shown, *(_spread_cell(entry) for entry in found)]
    means = [run.t0["mean"] if run.t0 else {} for run in runs]
    if any(mean.get("data_sets") for mean in means):
        same = len({tuple(mean["data_sets"]) for mean in means if mean}) == 1
        random = _common({number(mean["random"]) for mean in means if mean and same})
        for metric, chance in ((ACCURACY, random), (ACCURACY_PER_TOKEN, random), (NORMALISED, number(0.0))):
            yield [f"{TITLE} mean", metric, NOT_THERE, chance, *(_mean_cell(mean, metric) for mean in means)]


def t0_notes(run: Results) -> Iterator[str]:
    """What stands below the table of a run, once for each thing that somebody might trip over."""
    entry = run.t0
    if not entry:
        return
    yield f"{TITLE}: {entry['scoring_rule']}"
    if entry.get("trained_on"):
        yield f"not new to the model, which was trained on their data sets: {', '.join(entry['trained_on'])}"
    for name, task in entry["tasks"].items():
        prompts = task["prompts"]
        yield f"data of {name}: {task['data']}"
        skipped = [prompt for prompt in prompts if prompt["skipped"]]
        if skipped:
            count, first = sum(prompt["skipped"] for prompt in skipped), skipped[0]
            yield (
                f"{name}: {count} prompted examples are skipped, because they cannot be asked or scored; with template "
                f"{first['template']!r} {first['first_skipped']}"
            )
        cut = sum(prompt["inputs_cut"] for prompt in prompts)
        if cut:
            yield f"{name}: the inputs of {cut} prompted examples are too long and lost their beginning"
        for key, reason in SILENT_PROMPTS.items():
            if task[key]:
                yield f"{name}: {', '.join(task[key])}: {reason}"
    if entry["missing"]:
        first, reason = next(iter(entry["missing"].items()))
        yield f"missing in {TITLE}: {', '.join(entry['missing'])}; of {first}, {reason.removesuffix('.')}"


def t0_chart(runs: Sequence[Results]) -> Any:
    """A matplotlib figure: medians of accuracy as bars, whiskers to the worst and the best prompt, lines at random."""
    from matplotlib.figure import Figure  # not pyplot, which looks for a display

    tasks = [task for task, metric in _keys(runs) if metric == ACCURACY]
    figure = Figure(figsize=(max(5.0, 1.5 + 0.7 * len(tasks) + 0.15 * len(tasks) * len(runs)), 4.2), layout="tight")
    axes = figure.subplots()
    width = 0.8 / len(runs)
    for bar, run in enumerate(runs):
        places = [place + (bar - (len(runs) - 1) / 2) * width for place in range(len(tasks))]
        found = [_metric(run, task, ACCURACY) for task in tasks]
        heights = [entry["median"] if entry else math.nan for entry in found]
        down = [entry["median"] - entry["min"] if entry else 0.0 for entry in found]
        up = [entry["max"] - entry["median"] if entry else 0.0 for entry in found]
        axes.bar(places, heights, width, yerr=(down, up), label=run.name, capsize=2, color=f"C{bar}")
    randoms = [next(_task(run, task)["random"] for run in runs if "random" in _task(run, task)) for task in tasks]
    left, right = [place - 0.45 for place in range(len(tasks))], [place + 0.45 for place in range(len(tasks))]
    axes.hlines(randoms, left, right, colors="0.2", linestyles="--", linewidth=1, label="random")
    axes.set_xticks(range(len(tasks)), tasks, rotation=40, ha="right")
    axes.set_xlim(-0.6, max(len(tasks), 3) - 0.4)
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy, median and range over prompts")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(len(runs) + 1, 5))
    return figure


def _keys(runs: Sequence[Results]) -> list[tuple[str, str]]:
    """(task, metric) in the order in which they first appear."""
    return [
        *dict.fromkeys(
            (name, metric)
            for run in runs
            for name, task in run.t0.get("tasks", {}).items()
            for metric in task["metrics"]
        )
    ]


def _task(run: Results, task: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = run.t0.get("tasks", {}).get(task, {})
    return found


def _metric(run: Results, task: str, metric: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _task(run, task).get("metrics", {}).get(metric, {})
    return found


def _common(values: set[str]) -> str:
    """What all runs have, or a dash."""
    return values.pop() if len(values) == 1 else NOT_THERE


def _spread_cell(entry: Mapping[str, Any]) -> str:
    if not entry:
        return NOT_THERE
    error = "" if entry["stderr"] is None else f" ± {entry['stderr']:.4f}"
    return f"{number(entry['median'])} [{number(entry['min'])} to {number(entry['max'])}]{error}"


def _mean_cell(mean: Mapping[str, Any], metric: str) -> str:
    if not mean.get("data_sets"):
        return NOT_THERE
    part = "" if len(mean["data_sets"]) == mean["of"] else f" (over {len(mean['data_sets'])} of {mean['of']})"
    return with_error(mean[metric]["value"], mean[metric]["stderr"]) + part
