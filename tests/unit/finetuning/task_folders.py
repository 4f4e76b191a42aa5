"""Small data sets with templates, a mixture and a held-out task, as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Example = dict[str, Any]
ANIMALS = ("hen", "cow", "owl", "bat", "fox")
FOOD = ("seeds and corn", "fresh grass", "small mice")
CHOICES = "{{ food | join(' ||| ') }}"
TEMPLATES: dict[str, dict[str, tuple[str, str | None]]] = {
    "animals": {
        "ask": ("{{ question }}? ||| {{ answer_choices[label] }}", CHOICES),
        "tell": ("{% if label < 2 %}Something that eats {{ food[label] }} ||| {{ question }}{% endif %}", None),
    },
    "sums/plain": {"sum": ("{{ text }} is ||| {{ result }}", None)},
    "riddles": {"guess": ("{{ text }} ||| {{ answer_choices[label] }}", "yes ||| no")},
}


def animals(first: int, count: int) -> list[Example]:
    """Questions with three answers, no two alike."""
    return [
        {
            "id": f"id-{number}",
            "question": f"What does {ANIMALS[number % 5]} number {number} eat",
            "food": list(FOOD),
            "label": number % 3,
        }
        for number in range(first, first + count)
    ]


def sums(first: int, count: int) -> list[Example]:
    """Numbers in words of their own."""
    return [{"text": f"{number} + {number}", "result": str(2 * number)} for number in range(first, first + count)]


RIDDLES: list[Example] = [
    {"text": "It has hands, but cannot clap.", "label": 0},
    {"text": "It runs and has no legs.", "label": 1},
]


def write_templates(folder: Path, templates: Mapping[str, Mapping[str, tuple[str, str | None]]] = TEMPLATES) -> Path:
    """A folder of templates, each of its data set's original task."""
    for data_set, named in templates.items():
        path = folder / data_set / "templates.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        name, _, subset = data_set.partition("/")
        lines = [f"dataset: {name}", *([f"subset: {subset}"] if subset else []), "templates:"]
        for template, (jinja, choices) in named.items():
            lines += [
                f"  {template}: !Template",
                f"    {{id: {template}, name: {template}, reference: '', jinja: {json.dumps(jinja)},",
                f"     answer_choices: {json.dumps(choices)},",
                "     metadata: !TemplateMetadata {original_task: true, choices_in_prompt: false, metrics: []}}",
            ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_lines(path: Path, examples: Sequence[Example]) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(example) + "\n" for example in examples), encoding="utf-8")


def write_tasks(folder: Path) -> dict[str, str]:
    """Templates, data and a mixture below a folder; the flags that name them."""
    write_templates(folder / "templates")
    for name, split, examples in (
        ("animals", "train", animals(0, 40)),
        ("animals", "validation", animals(1000, 7)),
        ("sums/plain", "train", sums(0, 25)),
        ("riddles", "validation", RIDDLES),
    ):
        write_lines(folder / "data" / name / f"{split}.jsonl", examples)
    held_out = folder / "held_out.yaml"
    held_out.write_text("tasks: [{name: riddle, path: riddles, split: validation, prompts: 1, random: 1/2}]\n")
    mixture = folder / "mixture.yaml"
    mixture.write_text(
        f"held_out: {held_out}\ndata_sets: [{{path: animals, examples: 40}}, {{path: sums, configuration: plain}}]\n"
    )
    return {
        "--mixture": str(mixture),
        "--templates": str(folder / "templates"),
        "--data-dir": str(folder / "data"),
        "--output-folder": str(folder / "out"),
        "--workers": "1",
    }
