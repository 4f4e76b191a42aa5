"""What counts as a copy of an example of evaluation, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from megatron.finetuning.copies import (
    FINGERPRINTS,
    KnownTexts,
    fingerprint_of_example,
    fingerprint_of_prompt,
    normalised,
    texts_of,
)
from megatron.prompting.template import Prompted


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Is rain wet?", "  is  RAIN\nwet "),
        ("“Rain” is (very) wet...", '"Rain" is very wet'),
        ("the cafe\u0301", "The caf\u00e9"),
        ("\uff32\uff41\uff49\uff4e", "rain"),
    ],
)
def test_spelling_does_not_make_another_text(one: str, other: str) -> None:
    assert normalised(one) == normalised(other) != ""


@pytest.mark.parametrize(("one", "other"), [("3 - 2", "3 + 2"), ("it's", "its"), ("a b", "ab"), ("-2", "2")])
def test_what_means_something_else_stays_another_text(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


def test_an_example_is_what_it_says() -> None:
    """Numbers of examples, labels in numbers, letters or words, names of columns and their order do not count."""
    example = {"id": "q-1", "premise": "It rained.", "choices": {"text": ["wet", "dry"], "label": ["A", "B"]}, "y": "A"}
    same = {"choices": ["dry!", "wet"], "sentence": "it rained", "label": "entailment", "idx": 7}
    assert texts_of(example) == ["dry", "it rained", "wet"]
    assert fingerprint_of_example(example) == fingerprint_of_example(same)
    assert fingerprint_of_example(example) != fingerprint_of_example({**example, "choices": ["wet", "cold"]})
    assert fingerprint_of_example({"label": 3}) is None
    assert texts_of({"word": "Rain", "label": 0}) == ["rain"]  # all that there is


def test_two_questions_about_a_passage_are_two_examples() -> None:
    """720 of BoolQ's passages are in both of its splits."""
    passage = "Rain is water that falls from clouds."
    one, other = ({"passage": passage, "question": f"is rain {what}", "label": 1} for what in ("wet", "water"))
    assert fingerprint_of_example(one) != fingerprint_of_example(other)


def test_a_prompt_is_its_inputs_and_its_target() -> None:
    """The same words may ask for another answer: `Write a kind review.`"""
    asked = Prompted("Write a kind review.", ("Lovely.",), None)
    assert fingerprint_of_prompt(asked) == fingerprint_of_prompt(Prompted("write a kind review", ("lovely",), None))
    assert fingerprint_of_prompt(asked) != fingerprint_of_prompt(Prompted("Write a kind review.", ("Nice.",), None))
    assert fingerprint_of_prompt(Prompted("a", ("b c",), None)) != fingerprint_of_prompt(Prompted("a b", ("c",), None))


def test_known_texts_say_whose_they_are() -> None:
    values = np.arange(0, 3000, 3, dtype=FINGERPRINTS) * np.uint64(6_148_914_691_236_517)
    known = KnownTexts([("one", values[:400]), ("none", values[:0]), ("two", values[400:])])
    wanted = np.concatenate([values[[0, 399, 400, 999]], values[:2] + np.uint64(1)])
    assert known.owners(wanted.tobytes()) == ["one", "one", "two", "two", None, None]
    assert len(known) == 1000 and KnownTexts([]).owners(wanted.tobytes()) == [None] * 6
    assert known.digest() != KnownTexts([("one", values[1:])]).digest()
