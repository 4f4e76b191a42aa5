"""Which objectives go with which architecture, and what each architecture promises."""

import pytest

from megatron.architectures.legal_pairs import legal_objectives
from megatron.architectures.registry import ARCHITECTURES
from megatron.basics.errors import UserError
from megatron.objectives.registry import OBJECTIVES


def test_an_objective_is_legal_where_its_examples_are_accepted(monkeypatch):
    assert "full_lm" in legal_objectives("causal_decoder")
    for architecture in ARCHITECTURES:
        accepted = ARCHITECTURES[architecture].accepts
        assert legal_objectives(architecture) == [name for name in OBJECTIVES if OBJECTIVES[name].produces in accepted]
    monkeypatch.setattr(ARCHITECTURES["causal_decoder"], "accepts", (int,))
    assert legal_objectives("causal_decoder") == []


# The table that people are told: an encoder-decoder has nothing to put into its encoder for running text.
LEGAL = {
    "causal_decoder": {"full_lm", "prefix_lm", "span_corruption", "ul2", "fill_in_the_middle", "multitask"},
    "prefix_decoder": {"full_lm", "prefix_lm", "span_corruption", "ul2", "fill_in_the_middle", "multitask"},
    "encoder_decoder": {"prefix_lm", "span_corruption", "ul2", "multitask"},
}


@pytest.mark.parametrize("architecture", LEGAL)
def test_legal_pairs_are_those_of_the_table(architecture):
    assert set(legal_objectives(architecture)) == LEGAL[architecture]


def test_the_table_names_every_architecture_and_objective():
    assert set(LEGAL) == set(ARCHITECTURES)
    assert set().union(*LEGAL.values()) == set(OBJECTIVES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_know_their_names(name):
    assert ARCHITECTURES[name].name == name
    assert ARCHITECTURES[name].loss_names


def test_an_unknown_architecture_is_told_its_nearest_name():
    with pytest.raises(UserError, match="did you mean causal_decoder"):
        legal_objectives("causal_decodr")
