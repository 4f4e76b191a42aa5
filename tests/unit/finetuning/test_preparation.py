"""Data sets to prompts: what goes in comes out, once, the same however it is made, and without what is evaluated on."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from task_folders import FOOD, RIDDLES, animals, sums, write_lines, write_tasks, write_templates

from megatron.basics.errors import UserError
from megatron.cli.config_file import read_config_file
from megatron.cli.prepare_tasks import main
from megatron.data.options import DataOptions, blend_of
from megatron.data.pair_file import open_pair_file
from megatron.records.room import Room
from megatron.tokenization.tokenizer import load_tokenizer

ROOM = Room(inputs=1000, targets=1000, total=1000)


@pytest.fixture
def tasks(tmp_path: Path, sentencepiece_model: Path) -> dict[str, str]:
    """Flags of a preparation of small data sets."""
    return {**write_tasks(tmp_path), "--tokenizer-model": str(sentencepiece_model)}


def run(flags: dict[str, str], *switches: str) -> Path:
    main([word for pair in flags.items() for word in pair] + list(switches))
    return Path(flags["--output-folder"])


def pairs_of(prefix: Path, model: str) -> Counter[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The prompts of a pair of token files, as training opens them."""
    tokenizer = load_tokenizer("SentencePieceTokenizer", model)
    file = open_pair_file(str(prefix), tokenizer_fingerprint=tokenizer.fingerprint)
    found = [file.read(example, ROOM) for example in range(file.num_examples)]
    return Counter((tuple(tokens[:split]), tuple(tokens[split:])) for tokens, split in found)


def encoded(texts: list[tuple[str, str]], model: str) -> Counter[tuple[tuple[int, ...], tuple[int, ...]]]:
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
    return json.loads((out / "report.json").read_text())


def files_of(out: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in (".lock", "data.yaml")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, sentencepiece_model: Path) -> Path:
    """The output of a preparation, for tests that only read it."""
    folder = tmp_path_factory.mktemp("prepared")
    return run({**write_tasks(folder), "--tokenizer-model": str(sentencepiece_model)})


def test_the_multiset_of_examples_comes_out(prepared: Path, sentencepiece_model: Path) -> None:
    out, model = prepared, str(sentencepiece_model)
    assert pairs_of(out / "train/animals", model) == encoded(expected_of_animals(animals(0, 40)), model)
    texts = [(f"{example['text']} is", example["result"]) for example in sums(0, 25)]
    assert pairs_of(out / "train/sums/plain", model) == encoded(texts, model)
    lines = [json.loads(line) for line in (out / "validation/animals.jsonl").read_text().splitlines()]
    assert sorted((line["inputs"], *line["targets"]) for line in lines) == sorted(expected_of_animals(animals(1000, 7)))
    held_out = [json.loads(line) for line in (out / "held_out/riddle.jsonl").read_text().splitlines()]
    assert held_out[1] == {
        "data_set": "riddles",
        "template": "guess",
        "index": 1,
        "inputs": RIDDLES[1]["text"],
        "targets": ["no"],
        "choices": ["yes", "no"],
    }
    assert not (out / "train/riddles_inputs.bin").exists()


def test_training_reads_what_it_is_given(prepared: Path) -> None:
    out = prepared
    settings = DataOptions(**read_config_file(str(out / "data.yaml")))
    weights = {prefix: weight for weight, prefix in blend_of(settings.train_data_path)}
    # 40 asked and the 27 of them that can be told; one of the two templates does not apply to the others
    assert weights == {str(out / "train/animals"): 67.0, str(out / "train/sums/plain"): 25.0}
    assert blend_of(settings.valid_data_path) == [(12.0, str(out / "validation/animals"))]
    report = report_of(out)
    assert report["data_sets"][2]["templates"][1]["empty"] == 13
    assert list(report["without_validation"]) == ["sums/plain"] and not report["missing"]
    assert "has no split validation" in report["without_validation"]["sums/plain"]


def test_every_form_of_a_data_set_is_the_same(tasks: dict[str, str]) -> None:
    import datasets

    run(tasks)
    folder = Path(tasks["--data-dir"])
    table = datasets.Dataset.from_list(animals(0, 40))
    for part in range(2):
        some = table.select(range(20 * part, 20 * part + 20))
        some.to_parquet(str(folder / f"animals/train-0000{part}-of-00002.parquet"))
    datasets.Dataset.from_list(sums(0, 25)).save_to_disk(str(folder / "sums/plain/train"))
    validation = folder / "animals/validation.jsonl"
    (folder / "animals/validation.jsonl.gz").write_bytes(gzip.compress(validation.read_bytes()))
    for path in (validation, folder / "animals/train.jsonl", folder / "sums/plain/train.jsonl"):
        path.unlink()
    other = files_of(run({**tasks, "--output-folder": f"{tasks['--output-folder']}_other"}))
    first = files_of(Path(tasks["--output-folder"]))
    endings = (".bin", ".idx", ".jsonl", ".fingerprints")
    assert {name for name in first if name.endswith(endings)} == {name for name in other if name.endswith(endings)}
    assert [name for name in first if name.endswith(endings) and first[name] != other[name]] == []


def test_workers_make_the_same_bytes(tasks: dict[str, str]) -> None:
    write_lines(Path(tasks["--data-dir"]) / "animals/train.jsonl", animals(0, 150))
    alone = files_of(run(tasks))
    together = files_of(run({**tasks, "--output-folder": f"{tasks['--output-folder']}_3", "--workers": "3"}))
    assert alone == together


DYING = """
import os, signal, sys
from megatron.cli.prepare_tasks import main
from megatron.finetuning import prepared_unit

write, prepared_unit.EXAMPLES_AT_ONCE = prepared_unit._UnitWriter.write, 8
calls = []

def dying(writer, examples):
    write(writer, examples)
    calls.append(1)
    if len(calls) == 9:  # 2 of evaluation, 5 of the first data set, then in the middle of the second
        os.kill(os.getpid(), signal.SIGKILL)

prepared_unit._UnitWriter.write = dying
main(sys.argv[1:])
"""


def test_after_a_kill_the_same_command_makes_the_same_bytes(tasks: dict[str, str]) -> None:
    words = [word for pair in tasks.items() for word in pair]
    killed = subprocess.run([sys.executable, "-c", DYING, *words], env={**os.environ, "PYTHONPATH": "."}, timeout=60)
    assert killed.returncode == -9
    out = Path(tasks["--output-folder"])
    assert (out / "train/animals.prepared.json").exists() and not (out / "train/sums/plain_inputs.bin").exists()
    assert [*out.rglob("*.tmp")]
    before = (out / "train/animals_inputs.bin").stat().st_ino
    run(tasks)
    assert (out / "train/animals_inputs.bin").stat().st_ino == before  # what was finished is not made again
    again = run({**tasks, "--output-folder": f"{tasks['--output-folder']}_whole"})
    assert files_of(out) == files_of(again)


def test_what_has_changed_is_prepared_again(tasks: dict[str, str]) -> None:
    out = run(tasks)
    before = {path: path.stat().st_ino for path in out.rglob("*_inputs.bin")}
    write_lines(Path(tasks["--data-dir"]) / "sums/plain/train.jsonl", sums(0, 26))
    run(tasks)
    changed = {path.relative_to(out).as_posix() for path, inode in before.items() if path.stat().st_ino != inode}
    assert changed == {"train/sums/plain_inputs.bin"}
    assert len(pairs_of(out / "train/sums/plain", tasks["--tokenizer-model"])) == 26


def test_what_is_evaluated_on_is_not_trained_on(tasks: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Copies in another spelling, with another label, in another data set; what only looks alike stays."""
    data = Path(tasks["--data-dir"])
    (copied,) = animals(1002, 1)
    copied |= {"question": f'  "{copied["question"].upper()}". ', "label": (copied["label"] + 1) % 3, "id": "other"}
    riddle = {"text": RIDDLES[0]["text"].lower(), "result": "12"}
    write_lines(data / "animals/train.jsonl", [*animals(0, 10), copied, *animals(10, 5)])
    write_lines(data / "sums/plain/train.jsonl", [riddle, *sums(0, 5), {"text": "5 - 5", "result": "0"}])
    write_lines(data / "sums/plain/validation.jsonl", [{"text": "5 + 5", "result": "10"}])
    out = run(tasks)
    model = tasks["--tokenizer-model"]
    assert pairs_of(out / "train/animals", model) == encoded(expected_of_animals(animals(0, 15)), model)
    kept = [*sums(0, 5), {"text": "5 - 5", "result": "0"}]
    texts = [(f"{example['text']} is", example["result"]) for example in kept]
    assert pairs_of(out / "train/sums/plain", model) == encoded(texts, model)
    trained = [unit for unit in report_of(out)["data_sets"] if unit["role"] == "train"]
    assert [unit["copies"] for unit in trained] == [{"validation animals": 2}, {"held-out riddle": 1}]
    printed = capsys.readouterr().out
    assert "Example 10 of animals is in validation animals, too: all that it says." in printed
    assert "Example 0 of sums/plain is in held-out riddle, too" in printed


def test_the_search_for_copies_can_be_left_out_and_that_is_said(
    tasks: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_lines(Path(tasks["--data-dir"]) / "animals/train.jsonl", [*animals(0, 3), *animals(1000, 1)])
    out = run(tasks, "--no-leak-check")
    printed = capsys.readouterr()
    assert "NOT LOOKED FOR" in printed.out and "warning: --no-leak-check" in printed.err
    assert report_of(out)["leak_check"] == {"done": False, "texts": 0, "against": []}
    model = tasks["--tokenizer-model"]
    expected = expected_of_animals([*animals(0, 3), *animals(1000, 1)])
    assert pairs_of(out / "train/animals", model) == encoded(expected, model)


def test_a_cap_gives_each_template_its_share(tasks: dict[str, str]) -> None:
    out = run({**tasks, "--cap": "21"})
    counts = report_of(out)["data_sets"][2]["templates"]
    assert [sum(template[fate] for fate in ("kept", "empty", "copied")) for template in counts] == [10, 10]
    assert report_of(out)["data_sets"][2]["examples"] == 40


def test_what_is_missing_is_listed(tasks: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(Path(tasks["--data-dir"]) / "sums")
    shutil.rmtree(Path(tasks["--data-dir"]) / "riddles")
    out = run(tasks)
    report, printed = report_of(out), capsys.readouterr().out
    assert list(report["missing"]) == ["sums/plain"] and list(report["missing_held_out"]) == ["riddle"]
    assert (
        "- sums/plain is not trained on: " in printed and "- riddle is held out, but nothing of it is here" in printed
    )


def test_targets_are_not_longer_than_t0s(tasks: dict[str, str]) -> None:
    long = [{"text": "x", "result": "y " * count} for count in (9, 999)]
    write_lines(Path(tasks["--data-dir"]) / "sums/plain/train.jsonl", long)
    (counts,) = report_of(run(tasks))["data_sets"][3]["templates"]
    assert (counts["kept"], counts["too_long"]) == (1, 1)


def test_long_targets_are_left_out_where_that_is_asked(tasks: dict[str, str]) -> None:
    write_lines(Path(tasks["--data-dir"]) / "sums/plain/train.jsonl", [*sums(0, 5), {"text": "x", "result": "y " * 99}])
    out = run({**tasks, "--max-target-length": "30"})
    (counts,) = report_of(out)["data_sets"][3]["templates"]
    assert (counts["kept"], counts["too_long"]) == (5, 1)
    assert counts["first_left_out"].startswith("template 'sum' of sums/plain: example 5 has a target of ")
    with pytest.raises(
        UserError, match=r"template 'sum' of sums/plain: example 5 has a target of .* leaving out --strict"
    ):
        run({**tasks, "--max-target-length": "30", "--output-folder": f"{out}_strict"}, "--strict")


def test_long_inputs_keep_their_ends_whatever_the_architecture(tasks: dict[str, str]) -> None:
    model = tasks["--tokenizer-model"]
    out = run({**tasks, "--max-input-length": "12"})
    texts = [(f"{example['text']} is", example["result"]) for example in sums(0, 25)]
    whole = [*encoded(texts, model).elements(), *encoded(expected_of_animals(animals(0, 40)), model).elements()]
    found = pairs_of(out / "train/sums/plain", model) + pairs_of(out / "train/animals", model)
    assert found == Counter((inputs[-12:], target) for inputs, target in whole)
    cut = sum(len(inputs) > 12 for inputs, _ in whole)
    assert cut and sum(unit["cut_inputs"] for unit in report_of(out)["data_sets"] if unit["role"] == "train") == cut
    assert report_of(run({**tasks, "--output-folder": f"{out}_as_t0"}))["data_sets"][2]["cut_inputs"] == 0


def test_text_that_is_not_unicode_is_left_out_and_told(tasks: dict[str, str]) -> None:
    half = {"text": "half \ud800", "result": "y"}  # as JSON may say it
    write_lines(Path(tasks["--data-dir"]) / "sums/plain/train.jsonl", [*sums(0, 5), half, *sums(5, 2)])
    model = tasks["--tokenizer-model"]
    out = run(tasks)
    (counts,) = report_of(out)["data_sets"][3]["templates"]
    assert (counts["kept"], counts["unreadable"]) == (7, 1)
    assert counts["first_left_out"] == "template 'sum' of sums/plain: example 5 has text that is not Unicode."
    texts = [(f"{example['text']} is", example["result"]) for example in sums(0, 7)]
    assert pairs_of(out / "train/sums/plain", model) == encoded(texts, model)


def test_choices_that_cannot_be_ranked_are_told(tasks: dict[str, str]) -> None:
    alike = {**animals(3, 1)[0], "food": ["grass", "grass", "hay"]}
    write_lines(Path(tasks["--data-dir"]) / "animals/train.jsonl", [*animals(0, 3), alike])
    out = run(tasks)
    asked = report_of(out)["data_sets"][2]["templates"][0]
    assert (asked["kept"], asked["unrankable"]) == (4, 1)
    sentence = "template 'ask' of animals: example 3 has choices that are not distinct: 'grass', 'grass', 'hay'."
    assert asked["first_unrankable"] == sentence
    with pytest.raises(UserError, match="example 3 has choices that are not distinct"):
        run({**tasks, "--output-folder": f"{out}_strict"}, "--strict")
    with pytest.raises(UserError, match="example 3 has choices that are not distinct"):
        run(tasks, "--strict")  # also of what is finished


@pytest.mark.parametrize(
    ("change", "flags", "sentences"),
    [
        ("column", {}, ["template 'ask' of animals names the column questions, example 0 has", "template 'tell' of"]),
        ("templates", {}, [r"the mixture .* has animals, of which .* has no templates; did you mean animal\?"]),
        ("", {"--data-sets": "animal"}, [r"has no data set animal; did you mean animals\?"]),
        ("", {"--data-sets": "animals", "--split": "training"}, ["animals has no split training in .*; it has train"]),
        ("", {"--split": "training"}, ["nothing of the mixture .* is at hand, so nothing was written"]),
        ("", {"--templates": "{}/no"}, ["--templates .*/no is not a folder"]),
        ("", {"--data-dir": "{}/no"}, ["--data-dir .*/no is not a folder"]),
        ("", {"--mixture": "t1"}, ["t1 is neither a YAML file nor one of t0"]),
        ("", {"--cap": "1"}, ["animals: a cap of 1 leaves none of 2 templates an example"]),
        ("occupied", {}, ["--output-folder .* holds other files"]),
        ("", {"--validation-split": "train"}, ["--split and --validation-split are both train"]),
    ],
)
def test_bad_use_is_told_and_leaves_nothing(
    tmp_path: Path, tasks: dict[str, str], change: str, flags: dict[str, str], sentences: list[str]
) -> None:
    out = Path(tasks["--output-folder"])
    if change == "column":
        renamed = {"ask": ("{{ questions }} ||| x", None), "tell": ("x ||| {{ foods }}", None)}
        write_templates(tmp_path / "templates", {"animals": renamed})
    if change == "templates":
        (tmp_path / "templates/animals").rename(tmp_path / "templates/animal")
        path = tmp_path / "templates/animal/templates.yaml"
        path.write_text(path.read_text().replace("dataset: animals", "dataset: animal"))
    if change == "occupied":
        out.mkdir()
        (out / "notes.txt").touch()
    with pytest.raises(UserError) as caught:
        run({**tasks, **{flag: value.replace("{}", str(tmp_path)) for flag, value in flags.items()}})
    for sentence in sentences:
        assert [fault for fault in caught.value.faults if _matches(sentence, fault)], caught.value.faults
    assert {path.name for path in out.rglob("*")} <= {"notes.txt", ".lock"}


def test_a_folder_of_another_tokenizer_is_not_written(tasks: dict[str, str], tmp_path: Path) -> None:
    out = run(tasks)
    settings = out / "settings.json"
    settings.write_text(settings.read_text().replace('fingerprint": "', 'fingerprint": "0'))
    with pytest.raises(UserError, match="was prepared with another tokenizer than"):
        run(tasks)


def _matches(pattern: str, text: str) -> bool:
    import re

    return re.search(pattern, text) is not None
