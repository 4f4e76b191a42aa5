"""The files of an evaluation, and the command that lays several side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from megatron.basics.atomic_files import atomic_writer, write_json
from megatron.basics.option import Options, option
from megatron.cli.file_checks import unwritable
from megatron.cli.flags import parse
from megatron.evaluation.report import CHART_FILE, bar_chart, has_tasks, html_page, markdown
from megatron.evaluation.results import Results, read_results
from megatron.evaluation.t0_report import CHART_FILE as T0_CHART_FILE
from megatron.evaluation.t0_report import has_t0, t0_chart

DESCRIPTION = "Lay the results of several evaluations side by side, in tables and a bar chart."


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions(Options):
    """What to compare, and where to write."""

    group: ClassVar[str] = "comparison"

    results: list[str] = option([], "results.json of each evaluation, ours or lm-eval's own.", metavar="FILE")
    names: list[str] = option([], "Names of the runs in the tables. Default: those in the files.", metavar="NAME")
    output_path: str | None = option(
        None,
        "Folder for results.md, results.html and charts as PNG. Default: print the tables alone.",
        metavar="FOLDER",
    )

    def rules(self) -> Iterator[str]:
        """There is something to compare, and every run has one name."""
        if not self.results:
            yield "--results is missing; give the results.json of one or more evaluations."
        if self.names and len(self.names) != len(self.results):
            yield f"--names has {len(self.names)} names for {len(self.results)} files of --results; give one for each."


SECTIONS: dict[str, type[Options]] = {"comparison": ComparisonOptions}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises UserError."""
    arguments = sys.argv[1:] if argv is None else argv
    sections = parse(arguments, SECTIONS, description=DESCRIPTION, rules=(_report_can_be_written,))
    options: ComparisonOptions = sections["comparison"]
    runs = [read_results(Path(path)) for path in options.results]
    if options.names:
        runs = [Results(name, run.content) for name, run in zip(options.names, runs, strict=True)]
    print(markdown(runs), end="")
    if options.output_path:
        write_report(Path(options.output_path), runs)


def _report_can_be_written(comparison: ComparisonOptions) -> Iterator[str]:
    """The pictures have a place."""
    if comparison.output_path is not None:
        yield from unwritable("--output-path", comparison.output_path)


def write_report(folder: Path, runs: Sequence[Results]) -> None:
    """results.md, results.html and their charts; of a single run results.json as well. Raises UserError."""
    if len(runs) == 1:
        write_json(folder / "results.json", runs[0].content)
    for name, text in (("results.md", markdown(runs)), ("results.html", html_page(runs))):
        with atomic_writer(folder / name, "w") as file:
            file.write(text)
    charts = {CHART_FILE: bar_chart} if has_tasks(runs) else {}
    if has_t0(runs):
        charts[T0_CHART_FILE] = t0_chart
    for name, chart in charts.items():
        with atomic_writer(folder / name) as file:
            chart(runs).savefig(file, format="png", dpi=144)
