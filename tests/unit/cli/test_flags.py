"""The parser by itself: what a flag means, what a file means, and that every fault comes at once."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from megatron.basics.errors import UserError
from megatron.basics.option import Options, option
from megatron.cli.flags import add_options, options_from, parse


@dataclass(frozen=True, kw_only=True)
class Engine(Options):
    group: ClassVar[str] = "engine"

    num_cylinders: int = option(4, "Cylinders.", minimum=1, maximum=16)
    displacement: float | None = option(None, "Litres.", above=0.0)
    fuel: str = option("petrol", "What it burns.", choices=("petrol", "diesel", "hydrogen"))
    turbo: bool = option(False, "Blow.")
    gears: list[float] = option([], "Ratios.", metavar="RATIO")
    colours: list[str] = option(["red", "dark blue"], "Of the hood.", metavar="COLOUR")

    def rules(self) -> Iterator[str]:
        if self.turbo and self.fuel == "hydrogen":
            yield "--turbo and --fuel hydrogen exclude each other."


@dataclass(frozen=True, kw_only=True)
class Car(Options):
    group: ClassVar[str] = "car"

    seats: int = option(4, "Seats.", minimum=1)
    name: str | None = option(None, "What it is called.")


SECTIONS = {"engine": Engine, "car": Car}


def enough_power(engine: Engine, car: Car, hills: int) -> Iterator[str]:
    if car.seats * hills > engine.num_cylinders * 2:
        yield f"--num-cylinders {engine.num_cylinders} is too few for --seats {car.seats}."


def parsed(*words: str) -> tuple[Engine, Car]:
    sections = parse(words, SECTIONS, rules=[enough_power], facts={"hills": 1})
    return sections["engine"], sections["car"]


def faults(*words: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        parsed(*words)
    return list(caught.value.faults)


def test_every_kind_of_flag() -> None:
    engine, car = parsed(
        *shlex.split("--num-cylinders=8 --displacement 1.6e0 --fuel diesel --turbo --gears 3.5 2 1 --seats 5 --name -")
    )
    assert engine == Engine(num_cylinders=8, displacement=1.6, fuel="diesel", turbo=True, gears=[3.5, 2.0, 1.0])
    assert car == Car(seats=5, name="-")
    assert isinstance(engine.gears[1], float)


def test_nothing_given_is_the_default() -> None:
    assert parsed() == (Engine(), Car())


def test_the_last_of_a_repeated_flag_counts_so_that_a_launcher_can_be_overridden() -> None:
    assert parsed("--seats", "2", "--seats", "3")[1].seats == 3


def test_all_faults_come_at_once() -> None:
    answer = faults(*shlex.split("--num-cylinder 3 --displacement big --fuel disel --seats 0 --turbo maybe --name"))
    assert len(answer) == 6
    text = "\n".join(answer)
    for part in (
        "--num-cylinder is not a known flag; did you mean --num-cylinders?",
        "--displacement must be a number, not big.",
        "did you mean diesel?",
        "--seats 0 is too small; use 1 or more.",
        "--turbo is a switch and takes no value, not maybe.",
        "--name needs a value.",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--seat 3", "--seat is not a known flag; did you mean --seats?"),  # argparse would take the abbreviation
        ("--tur", "--tur is not a known flag"),
        ("-seats 3", "-seats is not a known flag; did you mean --seats?"),
        ("--zzz", "--zzz is not a known flag; see --help."),
        ("--seats=", "--seats needs a value."),
        ("--seats 3 4", "--seats takes one value, not 2: 3 4."),
        ("--seats 3.5", "--seats must be a whole number, not 3.5."),
        ("--seats 99999999999999999999", "--seats is too large"),
        ("--displacement nan", "--displacement nan must be a finite number."),
        ("--displacement inf", "--displacement inf must be a finite number."),
        ("--displacement 0", "--displacement 0.0 is too small; use more than 0.0."),
        ("--gears 1 x 2", "--gears must be a number, not x."),
        ("--gears", "--gears needs a value."),
        ("stray --seats 3", "stray belongs to no flag"),
        ("--turbo --fuel hydrogen", "exclude each other"),
        ("--num-cylinders 1", "too few for --seats 4"),
        ("--config /nowhere/run.yaml", "--config /nowhere/run.yaml cannot be read: No such file"),
        ("--config", "--config needs a value."),
    ],
)
def test_one_wrong_word_is_one_sentence(words: str, sentence: str) -> None:
    (answer,) = faults(*words.split())
    assert sentence in answer
    assert answer.endswith((".", "?"))


def test_rules_do_not_judge_values_that_are_in_doubt() -> None:
    # 4 seats need 2 cylinders; with the misspelt flag nobody knows how many were meant.
    assert faults("--num-cylindrs", "1") == ["--num-cylindrs is not a known flag; did you mean --num-cylinders?"]


def test_bounds_of_sound_fields_are_judged_beside_a_wrong_one() -> None:
    assert len(faults("--displacement", "x", "--num-cylinders", "40")) == 2


def config(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return ["--config", str(path)]


def test_file_and_command_line_are_one_language(tmp_path: Path) -> None:
    text = "num-cylinders: 6\ndisplacement: 3e-1\nturbo: true\ngears: [3, 2.5]\nseats: '2'\nname: 911\n"
    from_file = parsed(*config(tmp_path, text))
    assert from_file == parsed(
        *shlex.split("--num-cylinders 6 --displacement 0.3 --turbo --gears 3 2.5 --seats 2 --name 911")
    )
    assert from_file == parsed(*config(tmp_path, text.replace("num-cylinders", "num_cylinders")))


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = config(tmp_path, "seats: 3\nturbo: true\nname: slow\n")
    engine, car = parsed(*file, "--seats", "2", "--turbo=false")
    assert (car.seats, engine.turbo, car.name) == (2, False, "slow")


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    assert parsed(*config(tmp_path, "# nothing yet\n")) == (Engine(), Car())


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("seets: 3", ["run.yaml: seets is not a known setting; did you mean seats?"]),
        ("wheels: 3", ["run.yaml: wheels is not a known setting; see --help."]),
        ("config: other.yaml", ["run.yaml: config is not a known setting"]),
        ("3: 4", ["run.yaml: 3 is not a known setting"]),
        ("seats: three", ["run.yaml: seats must be a whole number, not three."]),
        ("seats: true", ["run.yaml: seats must be a whole number, not True."]),
        ("seats: 2.5", ["run.yaml: seats must be a whole number, not 2.5."]),
        ("seats:", ["run.yaml: seats must be a whole number, not nothing."]),
        ("seats: [1, 2]", ["run.yaml: seats must be a whole number, not list."]),
        ("turbo: 1", ["run.yaml: turbo must be true or false, not int."]),
        ("turbo: 'on'", ["run.yaml: turbo must be true or false, not on."]),
        ("gears: [1, [2]]", ["run.yaml: gears must be a number, not list."]),
        ("engine:\n  turbo: true", ["run.yaml: engine is not a known setting"]),
        ("displacement: .nan", ["--displacement nan must be a finite number."]),
        ("seats: 0x" + "f" * 5000, ["run.yaml: seats is too large"]),
        ("seats: 3\nseats: 4", ["gives seats twice"]),
        ("num-cylinders: 3\nnum_cylinders: 4", ["gives num_cylinders twice"]),
        ("- seats", ["must hold lines of FLAG: VALUE, not list."]),
        ("seats", ["must hold lines of FLAG: VALUE, not str."]),
        ("seats: [1", ["is not readable YAML: line 1, column"]),
        ("seats: 3\n\tname: x", ["is not readable YAML: line 2, column 1"]),
        ("seats: 3\n---\nseats: 4", ["is not readable YAML"]),
        ("seats: !!python/object/apply:os.system ['true']", ["is not readable YAML"]),
        ("seats: &a [*a]", ["must be a whole number, not list."]),
        ("name: 2020-13-45", ["is not readable YAML"]),
        ("? [a]\n: 3", ["is not readable YAML"]),
        ("seats: x\nname: y\nwheel: 3\nfuel: coal", ["seats must be", "wheel is not", "--fuel coal is not known"]),
        ("[" * 5000, ["is not readable YAML"]),
    ],
)
def test_a_wrong_file_names_file_and_key(tmp_path: Path, text: str, sentences: list[str]) -> None:
    answer = faults(*config(tmp_path, text))
    assert len(answer) == len(sentences)
    for fault, sentence in zip(answer, sentences, strict=True):
        assert sentence in fault


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00seats")
    assert "is not readable YAML" in faults("--config", str(tmp_path / "run.yaml"))[0]
    assert "cannot be read" in faults("--config", str(tmp_path))[0]


def test_help_shows_every_flag_with_group_default_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(["--help"], SECTIONS)
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert text.index("engine:") < text.index("--num-cylinders N") < text.index("car:") < text.index("--seats N")
    assert "Ratios. Default" not in text and "Blow. Default" not in text
    for part in (
        "Default: 4.",
        "Default: red 'dark blue'.",
        "{petrol,diesel,hydrogen}",
        "--gears RATIO [RATIO ...]",
        "--config FILE",
    ):
        assert part in text


def test_options_work_in_a_plain_parser_too() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Car)
    assert options_from(Car, {"seats": 7, "unrelated": 1}) == Car(seats=7)
    assert options_from(Car, parser.parse_args([])) == Car()


def test_two_sections_may_not_share_a_flag() -> None:
    with pytest.raises(AssertionError, match="--seats stands in two sections"):
        parse([], {"car": Car, "other": Car})
