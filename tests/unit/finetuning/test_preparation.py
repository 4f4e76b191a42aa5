"""Data sets to prompts: what goes in comes out, once, the same however it is made, on any number of workers."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from task_folders import (
    RIDDLES,
    animals,
    encoded,
    expected_of_animals,
    files_of,
    pairs_of,
    report_of,
    run,
    sums,
    write_lines,
    write_tasks,
    write_templates,
)

from megatron.basics.errors import UserError
from megatron.cli.config_file import read_config_file
from megatron.cli.prepare_tasks import OFFLINE
from megatron.data.options import DataOptions, blend_of
from megatron.finetuning import prepared_unit
from megatron.prompting.renderer import Renderer
from megatron.prompting.template_files import read_templates


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


def test_the_seed_decides_what_templates_choose(tasks: dict[str, str]) -> None:
    picked = ("{{ question }}: {{ food | choice }} or {{ food | choice }} ||| x", None)
    write_templates(Path(tasks["--templates"]), {"animals": {"pick": picked}})
    (template,) = read_templates(Path(tasks["--templates"]), "animals")
    lines = (run({**tasks, "--seed": "7"}) / "validation/animals.jsonl").read_text().splitlines()
    for seed, is_same in ((7, True), (1234, False)):
        rendered = [Renderer(template, seed).render(example, n) for n, example in enumerate(animals(1000, 7))]
        assert is_same == ([json.loads(line)["inputs"] for line in lines] == [one.inputs for one in rendered if one])


def test_long_prompts_are_written_one_by_one(tasks: dict[str, str], prepared: Path, monkeypatch: Any) -> None:
    sizes = []
    write = prepared_unit._UnitWriter.write

    def counted(writer: Any, examples: list[Any]) -> None:
        sizes.append(len(examples))
        write(writer, examples)

    monkeypatch.setattr(prepared_unit._UnitWriter, "write", counted)
    monkeypatch.setattr(prepared_unit, "BYTES_AT_ONCE", 1)
    out = run(tasks)
    assert set(sizes) == {1} and len(sizes) == 40 + 7 + 25 + len(RIDDLES)
    assert (out / "train/animals_inputs.bin").read_bytes() == (prepared / "train/animals_inputs.bin").read_bytes()


@pytest.mark.parametrize("is_given", [True, False])
def test_a_folder_of_data_means_no_network(
    tasks: dict[str, str], monkeypatch: pytest.MonkeyPatch, is_given: bool
) -> None:
    for name in OFFLINE:
        monkeypatch.setenv(name, "0")
    if not is_given:
        del tasks["--data-dir"]
    with pytest.raises(UserError, match="t1 is neither"):
        run({**tasks, "--mixture": "t1"})
    assert [os.environ[name] for name in OFFLINE] == ["1" if is_given else "0"] * len(OFFLINE)


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


def test_a_mixture_that_holds_out_nothing_is_told(tasks: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    mixture = Path(tasks["--mixture"])
    sentence = f"- Nothing is held out, because the mixture {mixture} says so"
    out = run(tasks)
    assert report_of(out)["held_out"] == ["riddle"] and sentence not in capsys.readouterr().out
    mixture.write_text("held_out: none\ndata_sets: [{path: animals}]\n")
    assert report_of(run(tasks))["held_out"] == [] and sentence in capsys.readouterr().out


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


def test_prompts_of_evaluation_that_are_not_unicode_are_told_too(tasks: dict[str, str]) -> None:
    """Where there are no tokens that would tell, and where the fault is in a choice that is not encoded."""
    data = Path(tasks["--data-dir"])
    write_lines(data / "riddles/validation.jsonl", [*RIDDLES, {"text": "half \ud800", "label": 0}])
    (asked,) = animals(1000, 1)
    other = {**asked, "id": "x", "question": "Is it", "food": [*asked["food"][:-1], "\udc00"], "label": 0}
    write_lines(data / "animals/validation.jsonl", [asked, other])
    out = run(tasks)
    report = {(unit["role"], unit["name"]): unit["templates"] for unit in report_of(out)["data_sets"]}
    (counts,) = report["held_out", "riddle"]
    assert (counts["kept"], counts["unreadable"]) == (2, 1)
    assert counts["first_left_out"] == "template 'guess' of riddles: example 2 has text that is not Unicode."
    assert len((out / "held_out/riddle.jsonl").read_text().splitlines()) == 2
    counts = report["validation", "animals"][0]
    assert (counts["kept"], counts["unreadable"]) == (1, 1) and "example 1 has text that is" in counts["first_left_out"]
    kept = expected_of_animals([asked]) + expected_of_animals([other])[1:]
    model = tasks["--tokenizer-model"]
    assert pairs_of(out / "validation/animals", model) == encoded(kept, model)
    assert len((out / "validation/animals.jsonl").read_text().splitlines()) == len(kept)
    with pytest.raises(UserError, match="example 1 has text that is not Unicode"):
        run(tasks, "--strict")


def test_choices_that_cannot_be_ranked_are_told(tasks: dict[str, str]) -> None:
    alike = {**animals(3, 1)[0], "food": ["grass", "grass", "hay"]}
    write_lines(Path(tasks["--data-dir"]) / "animals/train.jsonl", [*animals(0, 3), alike])
    out = run(tasks)
    asked = report_of(out)["data_sets"][2]["templates"][0]
    assert (asked["kept"], asked["unrankable"]) == (4, 1)
    sentence = "template 'ask' of animals: example 3 has choices that are not distinct: 'grass', 'grass', 'hay'."
    assert asked["first_unrankable"] == sentence
    with pytest.raises(UserError, match="32 are too long"):
        run({**tasks, "--output-folder": f"{out}_short", "--max-target-length": "2"})
    asked = report_of(Path(f"{out}_short"))["data_sets"][2]["templates"][0]
    assert (asked["kept"], asked["unrankable"]) == (0, 0)  # what is not kept has no other fault
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
