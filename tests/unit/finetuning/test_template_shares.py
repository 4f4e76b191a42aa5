"""All examples through all templates, or each template with its own part of a large data set."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.basics.errors import UserError
from megatron.finetuning.template_shares import number_of_prompts, shared_out


def shares(examples: int, templates: int, cap: int | None, seed: int = 1) -> list[tuple[int, tuple[int, ...]]]:
    rows = ({"number": number} for number in range(examples))
    found = [*shared_out(rows, examples, templates, cap, seed=seed, data_set="a/b")]
    assert all(one.example == {"number": one.index} for one in found)
    return [(one.index, tuple(one.templates)) for one in found]


@given(st.integers(0, 60), st.integers(1, 5), st.none() | st.integers(5, 80), st.integers(0, 3))
def test_the_cap_is_shared_among_templates(examples: int, templates: int, cap: int | None, seed: int) -> None:
    found = shares(examples, templates, cap, seed)
    numbers = [number for number, _ in found]
    assert numbers == sorted(set(numbers)) and set(numbers) <= set(range(examples))
    counts = Counter(template for _, chosen in found for template in chosen)
    assert sum(counts.values()) == number_of_prompts(examples, templates, cap)
    if cap is None or examples <= cap:  # T0's rule: all of it for each template
        assert counts == Counter(dict.fromkeys(range(templates), examples))
    else:
        assert counts == Counter(dict.fromkeys(range(templates), cap // templates))
        assert all(len(chosen) == 1 for _, chosen in found)


def test_the_seed_chooses() -> None:
    assert shares(1000, 3, 30, seed=1) == shares(1000, 3, 30, seed=1) != shares(1000, 3, 30, seed=2)


def test_a_cap_below_the_number_of_templates_is_refused() -> None:
    with pytest.raises(UserError, match="a cap of 2 leaves none of 3 templates an example"):
        number_of_prompts(10, 3, 2)
