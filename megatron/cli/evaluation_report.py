"""The files of an evaluation, and the command that lays several side by side."""

from __future__ import annotations

import io
import os
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
        for flag, values in (("--results", [*map(os.path.realpath, self.results)]), ("--names", self.names)):
            for value in dict.fromkeys(value for value in values if values.count(value) > 1):
                yield f"{flag} has {value} more than once; every run needs a name of its own."


SECTIONS: dict[str, type[Options]] = {"comparison": ComparisonOptions}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises UserError."""
    arguments = sys.argv[1:] if argv is None else argv
    sections = parse(arguments, SECTIONS, description=DESCRIPTION, rules=(_report_can_be_written,))
    options: ComparisonOptions = sections["comparison"]
    runs = [read_results(Path(path)) for path in options.results]
    names = options.names or _told_apart([run.name for run in runs], options.results)
    runs = [Results(name, run.content) for name, run in zip(names, runs, strict=True)]
    if options.output_path:
        write_report(Path(options.output_path), runs)
    print(markdown(runs), end="")


def _told_apart(names: Sequence[str], files: Sequence[str]) -> list[str]:
    """Names of runs; behind those that are equal stand the ends of their files' paths, as long as it takes."""
    paths = [Path(file).resolve() for file in files]
    ends = [(path.parent if path.name == "results.json" else path).parts for path in paths]
    longer = list(names)
    for length in range(1, max(map(len, ends)) + 1):
        if len({*longer}) == len(longer):
            break
        longer = [
            f"{name} ({Path(*end[-length:])})" if names.count(name) > 1 else name
            for name, end in zip(names, ends, strict=True)
        ]
    return longer


def _report_can_be_written(comparison: ComparisonOptions) -> Iterator[str]:
    """The pictures have a place."""
    if comparison.output_path is not None:
        yield from unwritable("--output-path", comparison.output_path)
        yield from report_in_the_way(comparison.output_path)


def report_in_the_way(folder: str) -> Iterator[str]:
    """A fault for each file of a report whose name a folder has; before hours of work."""
    for name in ("results.json", "results.md", "results.html", CHART_FILE, T0_CHART_FILE):
        path = Path(folder) / name
        if path.is_dir():
            yield f"--output-path {folder}: {path} is a folder, where a file has to stand; choose another path."


def write_report(folder: Path, runs: Sequence[Results]) -> None:
    """results.md, results.html and their charts, all made before one is written; of a single run first results.json.

    A chart that they do not have is removed: it would be of an earlier report. Raises UserError.
    """
    if len(runs) == 1:
        write_json(folder / "results.json", runs[0].content)
    files = {"results.md": markdown(runs).encode(), "results.html": html_page(runs).encode()}
    charts = {CHART_FILE: bar_chart} if has_tasks(runs) else {}
    if has_t0(runs):
        charts[T0_CHART_FILE] = t0_chart
    for name, chart in charts.items():
        picture = io.BytesIO()
        chart(runs).savefig(picture, format="png", dpi=144)
        files[name] = picture.getvalue()
    for name, content in files.items():
        with atomic_writer(folder / name) as file:
            file.write(content)
    for name in {CHART_FILE, T0_CHART_FILE} - files.keys():
        (folder / name).unlink(missing_ok=True)
