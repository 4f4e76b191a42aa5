"""Span corruption: T5's numbers, every segmentation equally likely, and nothing lost."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from megatron.records.special_tokens import SpecialTokens
from tests.oracles.objective_cases import SPECIAL, build, decoder_room, random_window, splice, two_rows, window_of


@pytest.mark.parametrize(
    ("inputs_length", "raw", "targets", "noise", "spans"),
    [(128, 141, 29, 21, 7), (256, 284, 58, 43, 14), (512, 568, 114, 85, 28), (1024, 1137, 229, 171, 57)],
)
def test_lengths_are_those_of_t5(inputs_length, raw, targets, noise, spans):
    """The table of t5/data/preprocessors.py's random_spans_helper for density 0.15 and mean length 3."""
    objective = build("span_corruption", two_rows(inputs_length, targets))
    assert objective.window_length == raw
    assert objective.counts(raw) == (noise, spans)
    assert objective.size(raw) == (inputs_length, targets, inputs_length + targets)


@pytest.mark.parametrize(
    ("row", "raw", "size"), [(512, 464, (418, 94)), (626, 568, (512, 114)), (1024, 929, (837, 186))]
)
def test_one_row_holds_inputs_and_targets(row, raw, size):
    objective = build("span_corruption", decoder_room(row, overlap=0))
    assert objective.window_length == raw and objective.size(raw)[:2] == size


def test_the_worked_example():
    """Whichever seed lays the spans like this, sentinels and parts come out like this."""
    special = SpecialTokens(end=1, sentinels=(99, 98))
    objective = build("span_corruption", two_rows(9, 7), special, noise_density=0.4, mean_noise_span_length=2.0)
    examples = (objective(window_of(range(10, 20)), Draws(seed))[0] for seed in range(200))
    example = next(example for example in examples if example.inputs.tolist() == [10, 11, 12, 13, 99, 15, 16, 98])
    assert example.targets.tolist() == [99, 14, 98, 17, 18, 19]
    assert example.is_complete


@settings(deadline=None)
@given(
    length=st.integers(2, 300),
    seed=st.integers(0, 2**63),
    density=st.floats(0.01, 0.9),
    mean=st.floats(1.0, 20.0),
)
def test_inputs_and_targets_splice_back_to_the_window(length, seed, density, mean):
    special = SpecialTokens(end=1, sentinels=tuple(range(5000, 4000, -1)))
    objective = build("span_corruption", decoder_room(40), special, noise_density=density, mean_noise_span_length=mean)
    window = random_window(length, seed % 997)
    (example,) = objective(window, Draws(seed))
    spliced, left = splice(example.inputs.tolist(), example.targets.tolist(), set(special.sentinels))
    assert spliced == window.tokens.tolist() and not left
    noise, spans = objective.counts(length)
    assert example.inputs[0] == window.tokens[0] and example.targets[-1] == window.tokens[-1]
    assert len(example.inputs) == length - noise + spans and len(example.targets) == noise + spans
    used = [token for token in example.targets.tolist() if token in special.sentinels]
    assert used == list(special.sentinels[:spans])


def test_every_segmentation_is_equally_likely():
    """Four noise tokens in two spans and six clean ones in two: 3 x 5 ways."""
    objective = build("span_corruption", decoder_room(40), noise_density=0.4, mean_noise_span_length=2.0)
    window, runs = window_of(range(10, 20)), 30_000
    seen = Counter(tuple(objective(window, Draws(seed))[0].inputs.tolist()) for seed in range(runs))
    ways = comb(3, 1) * comb(5, 1)
    assert len(seen) == ways
    assert all(abs(count - runs / ways) < 5 * (runs / ways) ** 0.5 for count in seen.values())


def test_noise_density_and_span_lengths():
    objective = build("span_corruption", two_rows(512, 114))
    window = random_window(568)
    is_sentinel = np.isin(objective(window, Draws(1))[0].targets, SPECIAL.sentinels)
    assert is_sentinel.sum() == 28 and (~is_sentinel).sum() == 85
    assert pytest.approx(0.15, abs=1 / 568) == 85 / 568 and pytest.approx(3, abs=0.1) == 85 / 28


def test_a_row_too_short_for_a_span_is_refused():
    assert build("span_corruption", decoder_room(6, overlap=0)).window_length == 2
    for room in (decoder_room(5, overlap=0), two_rows(512, 2), two_rows(2, 512)):
        with pytest.raises(UserError, match="--objective span_corruption needs rows that hold a token"):
            build("span_corruption", room)


def test_a_vocabulary_with_too_few_sentinels_is_refused():
    with pytest.raises(
        UserError, match=r"makes 114 spans of a window of 2274 tokens, .* has 100 sentinels; use --seq-"
    ):
        build("span_corruption", two_rows(2048, 456))
    with pytest.raises(UserError, match=r"has 0 sentinels; use --add-special-tokens sentinels, .* 100\.$"):
        build("span_corruption", two_rows(512, 114), SpecialTokens(end=1))


@pytest.mark.parametrize("name", ["span_corruption", "ul2"])
@pytest.mark.parametrize("room_of", [decoder_room, lambda length: two_rows(length, 800)], ids=["one row", "two rows"])
@pytest.mark.parametrize(("sentinels", "ways"), [(100, "use"), (7, "makes them 100, and"), (50, "makes them 100, and")])
def test_the_longest_row_that_sentinels_allow_is_named(name, room_of, sentinels, ways):
    """It is accepted, and the next one is not."""
    special = replace(SPECIAL, sentinels=SPECIAL.sentinels[:sentinels])
    with pytest.raises(UserError, match=rf"has {sentinels} sentinels; .*{ways} --seq-length \d+ or less") as refused:
        build(name, room_of(4096), special)
    longest = int(re.search(r"--seq-length (\d+)", str(refused.value))[1])
    build(name, room_of(longest))
    with pytest.raises(UserError, match="has 100 sentinels; use"):
        build(name, room_of(longest + 1))


def test_fewer_sentinels_than_could_be_added_leave_a_choice():
    special = replace(SPECIAL, sentinels=SPECIAL.sentinels[:7])
    sentence = (
        r"use --add-special-tokens sentinels, which makes them 100, or --seq-length (\d+) or less, or a larger --mean"
    )
    with pytest.raises(UserError, match=sentence) as refused:
        build("span_corruption", two_rows(512, 114), special)
    longest = int(re.search(sentence, str(refused.value))[1])
    build("span_corruption", two_rows(longest, 114), special)
    with pytest.raises(UserError, match=sentence):
        build("span_corruption", two_rows(longest + 1, 114), special)
