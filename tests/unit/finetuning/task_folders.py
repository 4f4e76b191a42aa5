"""Small data sets with templates, a mixture and a held-out task, as files, and what is prepared of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron.cli.prepare_tasks import main
from megatron.data.pair_file import open_pair_file
from megatron.records.room import Room
from megatron.tokenization.tokenizer import load_tokenizer

ROOM = Room(inputs=1000, targets=1000, total=1000)
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


def run(flags: dict[str, str], *switches: str) -> Path:
    """Prepare; the folder that was written."""
    main([word for pair in flags.items() for word in pair] + list(switches))
    return Path(flags["--output-folder"])


def pairs_of(prefix: Path, model: str) -> Counter[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The prompts of a pair of token files, as training opens them."""
    tokenizer = load_tokenizer("SentencePieceTokenizer", model)
    file = open_pair_file(str(prefix), tokenizer_fingerprint=tokenizer.fingerprint)
    found = [file.read(example, ROOM) for example in range(file.num_examples)]
    return Counter((tuple(tokens[:split]), tuple(tokens[split:])) for tokens, split in found)


def encoded(texts: list[tuple[str, str]], model: str) -> Counter[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The same of texts."""
    tokenizer = load_tokenizer("SentencePieceTokenizer", model)
    return Counter((tuple(tokenizer.encode(inputs)), tuple(tokenizer.encode(target))) for inputs, target in texts)


def expected_of_animals(examples: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What the templates say, written without them."""
    asked = [(f"{example['question']}?", FOOD[example["label"]]) for example in examples]
    told = [
        (f"Something that eats {FOOD[example['label']]}", example["question"])
        for example in examples
        if example["label"] < 2
    ]
    return asked + told


def report_of(out: Path) -> dict[str, Any]:
    """For programs."""
    return json.loads((out / "report.json").read_text())


def files_of(out: Path) -> dict[str, bytes]:
    """All of a preparation that does not name its folder."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in (".lock", "data.yaml")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}
