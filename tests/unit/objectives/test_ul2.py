"""UL2: the paper's seven denoisers, each as often as the others, and nothing lost under any of them."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from megatron.records.special_tokens import SpecialTokens
from tests.oracles.objective_cases import SPECIAL, build, decoder_room, random_window, splice, two_rows, window_of

R, S, X = SPECIAL.mode_tokens


def test_the_worked_example_of_the_sequential_denoiser():
    objective, window = build("ul2", decoder_room(40)), window_of(range(10, 18))
    examples = [objective(window, Draws(seed))[0] for seed in range(300)]
    sequential = [example for example in examples if example.inputs[0] == S]
    first = SPECIAL.sentinels[0]
    example = next(example for example in sequential if len(example.targets) == 3)
    assert example.inputs.tolist() == [S, 10, 11, 12, 13, 14, 15, first]
    assert example.targets.tolist() == [first, 16, 17]
    assert example.is_complete
    assert {len(example.targets) - 1 for example in sequential} == {1, 2, 3}


@settings(deadline=None)
@given(length=st.integers(1, 400), seed=st.integers(0, 2**63))
def test_inputs_and_targets_splice_back_to_the_window(length, seed):
    window = random_window(length, seed % 997)
    (example,) = build("ul2", decoder_room(626))(window, Draws(seed))
    assert example.inputs[0] in (R, S, X)
    spliced, left = splice(example.inputs[1:].tolist(), example.targets.tolist(), set(SPECIAL.sentinels))
    assert spliced == window.tokens.tolist() and not left


def test_denoisers_are_those_of_the_paper_and_equally_frequent():
    """Of 512 tokens, (mode, noise tokens, spans) by table 1; lengths of the sequential span are uniform."""
    table = {(R, 77, 26), (R, 77, 10), (X, 256, 85), (X, 256, 32), (X, 77, 1), (X, 256, 4)}
    objective, window, runs = build("ul2", decoder_room(800)), random_window(512), 7000
    seen, suffixes = Counter(), []
    for seed in range(runs):
        (example,) = objective(window, Draws(seed))
        spans = int(np.isin(example.targets, SPECIAL.sentinels).sum())
        noise = len(example.targets) - spans
        if example.inputs[0] == S:
            suffixes.append(noise)
            assert spans == 1
        else:
            seen[int(example.inputs[0]), noise, spans] += 1
    assert set(seen) == table
    # Seven of probability 1/7: five standard deviations of a binomial count are 146.
    assert all(abs(count - 1000) < 146 for count in (*seen.values(), len(suffixes)))
    assert min(suffixes) >= 1 and max(suffixes) <= 255
    # A uniform length has a standard deviation of 74; that of the mean of 1,000 is 2.3.
    assert abs(np.mean(suffixes) - 512 / 4) < 12 and abs(np.std(suffixes) - 255 / 12**0.5) < 8


@pytest.mark.parametrize(
    "room", [decoder_room(626), decoder_room(64, overlap=0), two_rows(512, 512), two_rows(512, 114)]
)
def test_windows_are_as_long_as_the_largest_denoiser_allows(room):
    objective = build("ul2", room)
    window, sizes = random_window(objective.window_length), defaultdict(int)
    for seed in range(1500):
        (example,) = objective(window, Draws(seed))
        sizes["inputs"] = max(sizes["inputs"], len(example.inputs) + 1)
        sizes["targets"] = max(sizes["targets"], len(example.targets) + 1)
        sizes["total"] = max(sizes["total"], len(example.inputs) + len(example.targets) + 2)
    full = (room.inputs - sizes["inputs"], room.targets - sizes["targets"], room.total - sizes["total"])
    assert min(full) in (0, 1, 2)


def test_a_vocabulary_without_mode_tokens_or_sentinels_is_refused():
    sentinels, modes = SPECIAL.sentinels, SPECIAL.mode_tokens
    with pytest.raises(UserError, match=r"ul2 needs the mode tokens .* add them with --add-special-tokens mode_tokens"):
        build("ul2", decoder_room(100), SpecialTokens(end=1, sentinels=sentinels))
    with pytest.raises(UserError, match="has 0 sentinels; use --add-special-tokens sentinels"):
        build("ul2", decoder_room(100), SpecialTokens(end=1, mode_tokens=modes))
    with pytest.raises(UserError, match=r"makes 128 spans of .* has 100 sentinels; use --seq-length \d+ or less\.$"):
        build("ul2", decoder_room(1024))


def test_a_row_too_short_for_a_span_is_refused():
    assert build("ul2", decoder_room(7, overlap=0)).window_length == 2
    for room in (decoder_room(6, overlap=0), two_rows(512, 2), two_rows(3, 512)):
        with pytest.raises(UserError, match="--objective ul2 needs rows that hold a mode token"):
            build("ul2", room)
