"""What is evaluated on is not trained on, and what is left out for it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from task_folders import (
    RIDDLES,
    animals,
    encoded,
    expected_of_animals,
    pairs_of,
    report_of,
    run,
    sums,
    write_lines,
    write_templates,
)

from megatron.basics.errors import UserError
from megatron.cli.prepare_tasks import main


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


def test_a_prompt_of_evaluation_is_left_out_of_any_example(tasks: dict[str, str]) -> None:
    """Templates may say the same of examples that differ, here of different lists of food."""
    data = Path(tasks["--data-dir"])
    (evaluated,) = animals(1000, 1)
    other = {**evaluated, "food": [*evaluated["food"][:2], "tins of fish"]}
    write_lines(data / "animals/train.jsonl", [*animals(0, 4), other])
    write_lines(data / "animals/validation.jsonl", [evaluated])
    assert evaluated["label"] != 2
    out = run({**tasks, "--data-sets": "animals"})
    model = tasks["--tokenizer-model"]
    assert pairs_of(out / "train/animals", model) == encoded(expected_of_animals(animals(0, 4)), model)
    (trained,) = (unit for unit in report_of(out)["data_sets"] if unit["role"] == "train")
    assert trained["copies"] == {"validation animals": 2} and [one["copied"] for one in trained["templates"]] == [1, 1]
    assert "inputs and target of template 'ask' of animals" in trained["first_copies"][0]


def numbers(first: int, count: int) -> list[dict[str, Any]]:
    """Examples that say the same, but for numbers and single words."""
    return [
        {"text": "Is this number odd?", "number": number, "result": ("no", "yes")[number % 2]}
        for number in range(first, first + count)
    ]


def test_what_most_examples_say_makes_none_of_them_a_copy(
    tasks: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"sums/plain": {"sum": ("{{ text }} {{ number }} ||| {{ result }}", None)}}
    write_templates(Path(tasks["--templates"]), asked)
    data = Path(tasks["--data-dir"]) / "sums/plain"
    write_lines(data / "train.jsonl", numbers(0, 40))
    write_lines(data / "validation.jsonl", numbers(39, 9))
    out = run({**tasks, "--data-sets": "sums/plain"})
    model = tasks["--tokenizer-model"]
    texts = [(f"{one['text']} {one['number']}", one["result"]) for one in numbers(0, 39)]
    assert pairs_of(out / "train/sums/plain", model) == encoded(texts, model)
    assert "sums/plain: 40 of its examples say, but for numbers and single words, the same" in capsys.readouterr().out
    words = [word for pair in tasks.items() for word in pair]
    with pytest.raises(
        UserError, match=r"example 39 of sums/plain is in validation sums/plain, too: inputs and target"
    ):
        main([*words, "--data-sets", "sums/plain", "--output-folder", f"{out}_strict", "--strict"])


@pytest.mark.parametrize("others", [5, 60])
def test_copies_are_found_among_examples_that_say_nothing_of_their_own(
    tasks: dict[str, str], capsys: pytest.CaptureFixture[str], others: int
) -> None:
    """Where such examples are most of a data set, and where they are two in five."""
    asked = {"sums/plain": {"sum": ("{{ text }} {{ number }} ||| {{ result }}", None)}}
    write_templates(Path(tasks["--templates"]), asked)
    data = Path(tasks["--data-dir"])
    riddles = [{"text": riddle["text"], "number": place, "result": "12"} for place, riddle in enumerate(RIDDLES)]
    own = [{"text": f"a sum of {number}", "number": 0, "result": str(number)} for number in range(others)]
    seven = [{"text": "Is it even?", "number": number, "result": "no"} for number in range(7)]
    write_lines(data / "sums/plain/train.jsonl", [*numbers(0, 20), *riddles, *own, *numbers(20, 20), *seven])
    write_lines(data / "sums/plain/validation.jsonl", [*numbers(39, 9), {**seven[0], "number": 99}])
    out = run(tasks)
    texts = [(f"{one['text']} {one['number']}", one["result"]) for one in [*numbers(0, 39), *own]]
    model = tasks["--tokenizer-model"]
    assert pairs_of(out / "train/sums/plain", model) == encoded(texts, model)
    trained = report_of(out)["data_sets"][4]
    assert trained["copies"] == {"held-out riddle": 2, "validation sums/plain": 8} and trained["alike"] == 40
    assert "sums/plain: 40 of its examples say, but for" in capsys.readouterr().out
    together = run({**tasks, "--output-folder": f"{out}_3", "--workers": "3"})
    for ending in ("_inputs.bin", "_targets.bin", ".prepared.json"):
        one, other = ((folder / f"train/sums/plain{ending}").read_bytes() for folder in (out, together))
        assert one == other


def test_a_whole_data_set_of_evaluation_under_another_name_is_not_trained_on(tasks: dict[str, str]) -> None:
    """Each example says something of its own, whatever the templates make of it."""
    data = Path(tasks["--data-dir"])
    copied = [{"text": one["question"], "food": one["food"], "result": "no"} for one in animals(1000, 20)]
    write_lines(data / "animals/validation.jsonl", animals(1000, 20))
    write_lines(data / "sums/plain/train.jsonl", copied)
    out = run(tasks)
    assert report_of(out)["data_sets"][3]["templates"][0]["copied"] == 20
    assert not report_of(out)["data_sets"][3]["alike"] and "sums" not in (out / "data.yaml").read_text()
    write_lines(data / "animals/train.jsonl", animals(1000, 10))
    with pytest.raises(
        UserError, match=r"no prompt of .* is left to train on: 3 are empty, 37 are copied; .*report.md"
    ):
        run(tasks)
    assert (out / "report.md").exists() and not (out / "data.yaml").exists()
