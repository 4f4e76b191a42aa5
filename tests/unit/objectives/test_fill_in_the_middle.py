"""Fill in the middle: both orders, every pair of cuts, documents by themselves, and nothing lost."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from megatron.records.special_tokens import SpecialTokens
from tests.oracles.objective_cases import SPECIAL, build, decoder_room, random_window, window_of

P, M, S = SPECIAL.fim_tokens
END = SPECIAL.end


def restored(tokens: list[int]) -> list[int]:
    """A document as it was before it was rearranged, whatever the order."""
    if not tokens or tokens[0] != P:
        return tokens
    end = tokens[-1:] if tokens[-1] == END else []
    tokens = tokens[: len(tokens) - len(end)]
    suffix_mark, middle_mark = tokens.index(S), tokens.index(M)
    prefix, suffix, middle = tokens[1:suffix_mark], tokens[suffix_mark + 1 : middle_mark], tokens[middle_mark + 1 :]
    # In the order SPM the prefix stands in front of the middle, and `prefix` is empty here.
    return [*prefix, *middle, *suffix, *end]


def test_the_worked_examples():
    """Six tokens, cuts at 2 and 4."""
    document = window_of([10, 11, 12, 13, 14, 15, END], [0])
    for spm_rate, wanted in (
        (0.0, [P, 10, 11, S, 14, 15, M, 12, 13, END]),
        (1.0, [P, S, 14, 15, M, 10, 11, 12, 13, END]),
    ):
        objective = build("fill_in_the_middle", decoder_room(40), fim_rate=1.0, fim_spm_rate=spm_rate)
        seen = [objective(document, Draws(seed))[0] for seed in range(500)]
        assert wanted in [example.targets.tolist() for example in seen]
        assert all(len(example.inputs) == 0 and not example.is_complete for example in seen)


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    seed=st.integers(0, 2**63),
    row=st.integers(4, 700),
    begins=st.booleans(),
    rate=st.floats(0, 1),
)
def test_documents_are_found_again_in_their_places(lengths, seed, row, begins, rate):
    documents = [[*random_window(length - 1, length).tokens.tolist(), END] for length in lengths]
    starts = [sum(lengths[:k]) for k in range(0 if begins else 1, len(lengths))]
    whole = [token for document in documents for token in document]
    objective = build("fill_in_the_middle", decoder_room(row), fim_rate=rate)
    (example,) = objective(window_of(whole, starts), Draws(seed))
    cuts = [0, *(start for start in example.document_starts.tolist() if start), len(example.targets)]
    assert begins == (0 in example.document_starts.tolist())
    parts = [example.targets[a:b].tolist() for a, b in itertools.pairwise(cuts)]
    assert [restored(part) for part in parts] == documents
    assert len(example.targets) <= len(whole) + row + 1 - objective.window_length


def test_every_pair_of_cuts_is_equally_likely():
    """Four tokens have five places to cut: 5 pairs of equal places, and 10 others that may be drawn in two orders."""
    objective = build("fill_in_the_middle", decoder_room(40), fim_rate=1.0, fim_spm_rate=0.0)
    window, runs = window_of([10, 11, 12, 13]), 10_000
    seen = Counter(tuple(objective(window, Draws(seed))[0].targets.tolist()) for seed in range(runs))
    cuts = Counter((seq.index(S) - 1, seq.index(S) - 1 + len(seq) - 1 - seq.index(M)) for seq in seen.elements())
    assert len(cuts) == 15
    for (first, last), count in cuts.items():
        expected = runs / 25 * (1 if first == last else 2)
        assert abs(count - expected) < 5 * expected**0.5


def test_rates_are_those_asked_for():
    objective = build("fill_in_the_middle", decoder_room(626), fim_rate=0.6, fim_spm_rate=0.25)
    window = random_window(500)
    texts = [objective(window, Draws(seed))[0].targets[:2].tolist() for seed in range(4000)]
    rearranged = [text for text in texts if text[0] == P]
    # Five standard deviations of 4,000 coins of 0.6 and of 2,400 of 0.25 are 155 and 106; an empty prefix adds 5.
    assert abs(len(rearranged) - 2400) < 155
    assert abs(sum(text[1] == S for text in rearranged) - 600) < 112


def test_windows_with_more_documents_than_marks_keep_the_rest_as_it_is():
    objective = build("fill_in_the_middle", decoder_room(255), fim_rate=1.0)  # 256 tokens: marks of two documents
    assert objective.window_length == 250
    window = window_of(random_window(250).tokens, range(0, 250, 50))
    (example,) = objective(window, Draws(1))
    assert len(example.targets) == 256 and (example.targets == P).sum() == 2
    assert example.targets[-150:].tolist() == window.tokens[-150:].tolist()
    assert example.document_starts.tolist() == [0, 53, 106, 156, 206]


def test_rate_zero_is_plain_text():
    objective, window = build("fill_in_the_middle", decoder_room(64), fim_rate=0.0), random_window(61)
    assert objective(window, Draws(3))[0].targets.tolist() == window.tokens.tolist()


def test_a_vocabulary_without_marks_and_a_row_without_room_are_refused():
    with pytest.raises(UserError, match=r"needs marks of prefix, .* add them with --add-special-tokens fim_tokens"):
        build("fill_in_the_middle", decoder_room(100), SpecialTokens(end=1))
    with pytest.raises(UserError, match="needs rows that hold 3 marks and a token; use --seq-length 4 or more"):
        build("fill_in_the_middle", decoder_room(3, overlap=0))
