"""Tasks made from a WordNet of which everything is known: answers, sides, prompts, and what is said of other files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron.cli.prepare_tasks import main as prepare_tasks
from megatron.prompting.mixture import read_held_out, read_mixture
from megatron.prompting.renderer import Renderer
from megatron.prompting.template import fault_of_choices
from megatron.prompting.template_files import data_sets_of, read_templates
from tests.unit.examples.made_up_wordnet import NOTICE, MadeUp, made_up_wordnet

EXAMPLE = Path("examples/multitask_offline")
OURS = EXAMPLE / "wordnet"
TEMPLATES = OURS / "templates"
TRAINED = ("wordnet_definition", "wordnet_truth", "wordnet_kind", "wordnet_blank", "wordnet_category")
HELD_OUT = ("wordnet_sense", "wordnet_opposite", "wordnet_entailment")
WORD_COLUMNS = ("word", "kind", "word_1", "word_2", "verb", "other_verb")
TEXT_COLUMNS = ("definition", "other_definition", "sentence_1", "sentence_2")
Row = dict[str, Any]


def run(wordnet: Path, out: Path, *more: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, EXAMPLE / "wordnet_tasks.py", "--wordnet", wordnet, "--output-folder", out),
            *("--evaluation-percent", "40", *more),
        ],
        env={**os.environ, "PYTHONPATH": ".", "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def facts() -> MadeUp:
    return made_up_wordnet()


@pytest.fixture(scope="module")
def wordnet(facts: MadeUp, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return facts.write(tmp_path_factory.mktemp("wordnet"))


@pytest.fixture(scope="module")
def out(wordnet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is made of it, to be read."""
    folder = tmp_path_factory.mktemp("made") / "out"
    done = run(wordnet, folder)
    assert done.returncode == 0, done.stderr
    return folder


def rows_of(out: Path, task: str, split: str) -> list[Row]:
    return [json.loads(line) for line in (out / "data" / task / f"{split}.jsonl").read_text("utf-8").splitlines()]


def everything(out: Path, split: str) -> Iterator[tuple[str, Row]]:
    for task in TRAINED + (HELD_OUT if split == "validation" else ()):
        yield from ((task, row) for row in rows_of(out, task, split))


def filled(row: Row, choice: str) -> str:
    return row["sentence"].replace("____", choice)


def is_right(facts: MadeUp, task: str, row: Row) -> bool:
    """Whether the label of an example is true, and any other would be false."""
    label = row["label"]
    if task == "wordnet_definition":
        right = [choice in facts.meanings[row["definition"]] for choice in row["choices"]]
        return right[label] and right.count(True) == 1
    if task == "wordnet_truth":
        return (row["word"] in facts.meanings[row["definition"]]) == bool(label)
    if task == "wordnet_kind":
        return ((row["word"], row["kind"]) in facts.kinds) == bool(label)
    if task == "wordnet_blank":
        right = [filled(row, choice) in facts.uses for choice in row["choices"]]
        return right[label] and right.count(True) == 1
    if task == "wordnet_category":
        return (
            row["choices"][label] == facts.category_of[row["definition"]]
            and row["word"] in facts.meanings[row["definition"]]
        )
    if task == "wordnet_sense":
        (one, word), (two, other) = facts.uses[row["sentence_1"]], facts.uses[row["sentence_2"]]
        return word == other == row["word"] and row["sentence_1"] != row["sentence_2"] and (one == two) == bool(label)
    if task == "wordnet_opposite":
        return frozenset((row["word_1"], row["word_2"])) in (facts.opposites if label else facts.synonyms)
    pair = (row["verb"], row["other_verb"])
    return (
        (pair in facts.implied) == bool(label)
        and facts.meanings[row["definition"]] == {pair[0]}
        and facts.meanings[row["other_definition"]] == {pair[1]}
    )


def test_every_answer_is_right_and_labels_are_balanced(out: Path, facts: MadeUp) -> None:
    for split in ("train", "validation"):
        counts: dict[str, Counter[int]] = {}
        for task, row in everything(out, split):
            assert is_right(facts, task, row), (task, row)
            assert len(set(row.get("choices", range(4)))) == 4
            counts.setdefault(task, Counter())[row["label"]] += 1
        assert counts.keys() == {*TRAINED, *(HELD_OUT if split == "validation" else ())}
        for task, labels in counts.items():
            expected = 4 if task in ("wordnet_definition", "wordnet_blank", "wordnet_category") else 2
            assert len(labels) == expected and len(set(labels.values())) == 1, (task, labels)
    opposites = rows_of(out, "wordnet_opposite", "validation")
    parts = Counter((row["part_of_speech"], row["label"]) for row in opposites)
    assert {part for part, _ in parts} == {"adjective"} and len(set(parts.values())) == 1  # nouns have synonyms alone
    assert not [path for task in HELD_OUT for path in (out / "data" / task).glob("train*")]


def test_opposites_implied_verbs_and_wrong_kinds_of_every_form_are_there(out: Path, facts: MadeUp) -> None:
    verbs = {(row["verb"], row["other_verb"]) for row in rows_of(out, "wordnet_entailment", "validation")}
    assert facts.implied < verbs  # all of them are evaluated on
    assert {(other, verb) for verb, other in facts.implied} & verbs
    wrong = [row for row in rows_of(out, "wordnet_kind", "train") if not row["label"]]
    above = {kind for _, kind in facts.kinds}
    forms = {(row["word"] in above, row["kind"] in above) for row in wrong}
    assert forms == {(True, False), (False, False), (False, True)}


def words_of(row: Row) -> set[str]:
    named = {row[column] for column in WORD_COLUMNS if column in row}
    return named | set(row["choices"] if "word" not in row and "choices" in row else ())


def texts_of(row: Row) -> set[str]:
    found = {row[column] for column in TEXT_COLUMNS if column in row}
    return found | ({filled(row, row["choices"][row["label"]])} if "sentence" in row else set())


def test_no_word_and_no_text_of_evaluation_is_trained_on(out: Path) -> None:
    trained = [row for _, row in everything(out, "train")]
    evaluated = [row for _, row in everything(out, "validation")]
    for of in (words_of, texts_of):
        first, second = set().union(*map(of, trained)), set().union(*map(of, evaluated))
        assert len(first) > 50 and len(second) > 50 and not first & second
    corpus = [json.loads(line) for line in (out / "corpus.jsonl").read_text("utf-8").splitlines()]
    assert {document["source"] for document in corpus} == {"data.noun", "data.verb", "data.adj", "data.adv"}
    read = " ".join(document["text"] for document in corpus)
    assert not [text for row in evaluated for text in texts_of(row) if text in read]
    assert not {word for row in evaluated for word in words_of(row)} & set(read.replace(":", "").split())
    assert [row["definition"] for row in trained if "definition" in row and row["definition"] not in read] == []


def test_opposites_are_on_one_side_however_many_go_together(out: Path, facts: MadeUp) -> None:
    corpus = (out / "corpus.jsonl").read_text("utf-8")
    read = {line.split('"text": "')[1].split(":")[0] for line in corpus.splitlines()}
    sides = Counter(len(pair & read) for pair in facts.opposites)
    assert sides.keys() == {0, 2} and min(sides.values()) > 10


def test_the_notice_lies_beside_the_data(out: Path) -> None:
    assert (out / "LICENSE").read_text("utf-8") == NOTICE + "\n"


def test_the_same_files_flags_and_seed_give_the_same_bytes(out: Path, wordnet: Path, tmp_path: Path) -> None:
    def bytes_of(folder: Path) -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert run(wordnet, tmp_path / "again", hash_seed="1").returncode == 0
    assert bytes_of(tmp_path / "again") == bytes_of(out)
    assert run(wordnet, tmp_path / "few", "--max-examples", "9", "--max-evaluation-examples", "5").returncode == 0
    assert {len(rows_of(tmp_path / "few", task, "train")) for task in TRAINED} == {8}
    assert {len(rows_of(tmp_path / "few", task, "validation")) for task in TRAINED + HELD_OUT} == {4}
    assert run(wordnet, tmp_path / "other", "--seed", "5").returncode == 0
    assert bytes_of(tmp_path / "other") != bytes_of(out)


def test_every_template_words_every_example(out: Path) -> None:
    assert set(data_sets_of(TEMPLATES)) == {*TRAINED, *HELD_OUT}
    for task in TRAINED + HELD_OUT:
        rows = rows_of(out, task, "validation")
        for template in read_templates(TEMPLATES, task):
            renderer, answers = Renderer(template), Counter()
            for index, row in enumerate(rows):
                prompted = renderer.render(row, index)
                assert prompted is not None and fault_of_choices(prompted) is None, (template.title, row)
                assert prompted.choices is not None
                assert prompted.targets == (prompted.choices[row["label"]],)
                assert template.choices_in_prompt == all(
                    choice.casefold() in prompted.inputs.casefold() for choice in prompted.choices
                ), template.title
                answers[prompted.targets[0]] += 1
            assert template.is_original_task and template.metrics == ("Accuracy",)
            assert len(answers) > 1, template.title


def test_the_mixture_holds_out_what_the_lists_say() -> None:
    mixture = read_mixture(str(OURS / "mixture.yaml"))
    assert tuple(entry.data_set for entry in mixture.data_sets) == TRAINED
    assert tuple(task.name for task in mixture.held_out) == HELD_OUT
    listed = read_held_out(str(OURS / "trained_tasks.yaml"))
    assert tuple(task.name for task in listed) == TRAINED
    for task in (*listed, *mixture.held_out):
        templates = task.chosen(read_templates(TEMPLATES, task.data_set))
        assert len({template.jinja for template in templates}) == task.prompts == 5


@pytest.mark.parametrize("task", TRAINED + HELD_OUT)
def test_a_guess_is_as_good_as_the_lists_say(out: Path, task: str) -> None:
    tasks = [task for name in ("trained", "held_out") for task in read_held_out(str(OURS / f"{name}_tasks.yaml"))]
    entry = next(entry for entry in tasks if entry.name == task)
    labels = Counter(row["label"] for row in rows_of(out, task, entry.split))
    assert entry.random * len(labels) == 1


def test_prepare_tasks_takes_all_of_it(out: Path, tmp_path: Path, sentencepiece_model: Path) -> None:
    flags = {
        "--mixture": OURS / "mixture.yaml",
        "--templates": TEMPLATES,
        "--data-dir": out / "data",
        "--tokenizer-model": sentencepiece_model,
        "--output-folder": tmp_path / "tasks",
        "--workers": 1,
    }
    prepare_tasks([str(word) for pair in flags.items() for word in pair] + ["--strict"])
    for task in HELD_OUT:
        prompts = (tmp_path / "tasks" / "held_out" / f"{task}.jsonl").read_text("utf-8").splitlines()
        assert len(prompts) == 5 * len(rows_of(out, task, "validation"))
    for task in TRAINED:
        assert (tmp_path / "tasks" / "train" / f"{task}_targets.bin").stat().st_size


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("data.verb", None, None, "has no data.verb; give the folder"),
        ("data.adv", "", "", "has no synset"),
        ("data.noun", " | what", " what", "line 3 of {}/data.noun is no synset, because it has no definition"),
        ("data.noun", " n 01 ", " n 03 ", "line 3 of {}/data.noun is no synset, because its numbers, words"),
        ("data.noun", " n 01 ", " v 01 ", "its part of speech is v among those of each noun"),
        ("data.verb", "02 + 01 00 + 02 01", "02 + 01 00", "it has 11 fields where its counts ask for 14"),
        ("data.adj", "! 00000", "! 90000", "has a link to adjective 90000"),
        ("data.noun", "  1 This", "1 This", "line 1 of {}/data.noun is no synset"),
        ("data.noun", f"  1 {NOTICE}  \n  2  \n", "", "does not begin with the licence"),
    ],
)
def test_other_files_are_one_sentence(
    facts: MadeUp, tmp_path: Path, name: str, old: str | None, new: str | None, said: str
) -> None:
    folder = facts.write(tmp_path / "wordnet")
    path = folder / name
    text = path.read_text("latin-1")
    if old is None or new is None:
        path.unlink()
    else:
        path.write_text(text.replace(old, new, 1) if old else new, "latin-1")
    done = run(folder, tmp_path / "out")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert said.format(folder) in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--max-examples", "3"], "--max-examples 3 is less than 4"),
        (["--evaluation-percent", "60"], "--evaluation-percent 60 is not within 1 to 50"),
        (["--evaluation-percent", "1"], "too few words for the split validation of wordnet_"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(wordnet: Path, tmp_path: Path, flags: list[str], said: str) -> None:
    done = run(wordnet, tmp_path / "out", *flags)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and said in done.stderr
    assert not (tmp_path / "out").exists()
