"""Sections that check themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from megatron.basics.errors import UserError
from megatron.basics.option import Options, bound_faults, flag_of, option


@dataclass(frozen=True, kw_only=True)
class Oven(Options):
    degrees: int = option(180, "Celsius.", minimum=30, maximum=300)
    hours: float = option(1.0, "Hours.", above=0.0)
    mode: str = option("fan", "Heat.", choices=("fan", "grill"))
    timer: float | None = option(None, "Hours.", minimum=0)
    racks: list[int] = option([1], "Racks.")
    sides: list[str] = option([], "Heated sides.", choices=("top", "bottom"))

    def rules(self) -> Iterator[str]:
        if self.mode == "grill" and self.degrees < 200:
            yield "--mode grill needs --degrees 200."


def faults(**values: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        Oven(**values)  # type: ignore[arg-type]
    return list(caught.value.faults)


def test_every_bound_at_once_and_rules_only_on_sound_values() -> None:
    assert faults(degrees=20, hours=0.0, mode="gril") == [
        "--degrees 20 is too small; use 30 or more.",
        "--hours 0.0 is too small; use more than 0.0.",
        "--mode gril is not known; did you mean grill? Known: fan, grill.",
    ]
    assert faults(degrees=301) == ["--degrees 301 is too large; use 300 or less."]
    assert faults(mode="grill") == ["--mode grill needs --degrees 200."]


def test_each_item_of_a_list_is_one_of_the_choices() -> None:
    assert Oven(sides=["bottom", "top"]).sides == ["bottom", "top"]
    assert faults(sides=["top", "botom", "left"]) == [
        "--sides botom is not known; did you mean bottom? Known: top, bottom.",
        "--sides left is not known; Known: top, bottom.",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_are_finite(value: float) -> None:
    assert faults(hours=value) == [f"--hours {value} must be a finite number."]


def test_bounds_are_inclusive_and_none_is_not_set() -> None:
    assert Oven(degrees=30).degrees == 30
    assert Oven(degrees=300, timer=None).timer is None
    assert Oven(timer=0).timer == 0


def test_sections_do_not_share_their_lists_and_do_not_change() -> None:
    first, second = Oven(), Oven()
    assert first.racks == second.racks == [1]
    assert first.racks is not second.racks
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.degrees = 3  # type: ignore[misc]


def test_one_value_alone() -> None:
    (degrees, *_) = dataclasses.fields(Oven)
    assert list(bound_faults(degrees, 0)) == ["--degrees 0 is too small; use 30 or more."]
    assert list(bound_faults(degrees, 31)) == []


def test_flag_names() -> None:
    assert flag_of("tensor_model_parallel_size") == "--tensor-model-parallel-size"
