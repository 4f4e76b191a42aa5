"""The choice of a token, against the distribution written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.evaluation.sampling import choose_token

LOGITS = torch.tensor([0.5, -1.0, 2.0, 2.0, -30.0, 1.0])


def draws(count, logits=LOGITS, *, temperature=1.0, top_k=None, top_p=1.0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [choose_token(logits, generator, temperature=temperature, top_k=top_k, top_p=top_p) for _ in range(count)]


def allowed(logits, temperature, top_k, top_p):
    """{token: probability} by walking down the sorted list."""
    probabilities = (logits.double() / temperature).softmax(0).tolist()
    order = sorted(range(len(logits)), key=lambda token: (-probabilities[token], token))[:top_k]
    total, kept = sum(probabilities[token] for token in order), []
    for token in order:
        if sum(probabilities[other] for other in kept) / total >= top_p - 1e-12:
            break
        kept.append(token)
    total = sum(probabilities[token] for token in kept)
    return {token: probabilities[token] / total for token in kept}


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, None, 1.0), (0.5, None, 1.0), (3.0, None, 1.0), (1.0, 3, 1.0), (1.0, None, 0.75), (2.0, 4, 0.9)],
)
def test_frequencies_are_the_probabilities(temperature, top_k, top_p):
    count = 6000
    found = draws(count, temperature=temperature, top_k=top_k, top_p=top_p)
    expected = allowed(LOGITS, temperature, top_k, top_p)
    assert set(found) <= set(expected)
    for token, probability in expected.items():
        four_deviations = 4 * (probability * (1 - probability) / count) ** 0.5
        assert found.count(token) / count == pytest.approx(probability, abs=four_deviations + 1e-9)


def test_temperature_zero_takes_the_likeliest_and_draws_nothing():
    generator = torch.Generator().manual_seed(1)
    state = generator.get_state()
    assert choose_token(LOGITS, generator, temperature=0.0, top_k=None, top_p=1.0) == 2
    assert torch.equal(generator.get_state(), state)


@settings(deadline=None)
@given(
    logits=st.lists(st.floats(-50, 50), min_size=1, max_size=20),
    temperature=st.floats(1e-300, 1e3),
    top_k=st.none() | st.integers(1, 30),
    top_p=st.floats(1e-6, 1.0),
    seed=st.integers(0, 99),
)
def test_any_setting_gives_an_allowed_token(logits, temperature, top_k, top_p, seed):
    logits = torch.tensor(logits)
    (token,) = draws(1, logits, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    likelier = int((logits > logits[token]).sum())
    assert 0 <= token < len(logits)
    assert top_k is None or likelier < top_k
    if temperature < 1e-200:
        assert likelier == 0


@pytest.mark.parametrize("setting", [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-300}])
def test_the_narrowest_choice_is_the_likeliest(setting):
    assert set(draws(20, torch.tensor([1.0, 3.0, 2.0]), **setting)) == {1}


def test_seeds_reproduce():
    assert draws(50) == draws(50) != draws(50, seed=2)


def test_rounding_of_the_logits_does_not_move_the_choice():
    """Another layout gives logits that differ in their last bits."""
    logits = torch.randn(5000, generator=torch.Generator().manual_seed(1)) * 0.1
    for seed in range(100):
        assert draws(1, logits, seed=seed) == draws(1, logits * (1 + 1e-6), seed=seed)
