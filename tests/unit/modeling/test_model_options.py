"""Sizes that follow from other sizes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.basics.errors import UserError
from megatron.modeling.options import ACTIVATIONS, ModelOptions


@settings(deadline=None)
@given(vocabulary=st.integers(1, 10**6), multiple=st.integers(1, 10**4))
def test_padding_is_the_least_that_divides(vocabulary, multiple):
    padded = ModelOptions(make_vocab_size_divisible_by=multiple).padded_vocabulary_size(vocabulary)
    assert padded % multiple == 0 and 0 <= padded - vocabulary < multiple


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_default_feed_forward_width(activation):
    options = ModelOptions(hidden_size=4096, num_attention_heads=32, activation=activation)
    # Touvron et al. 2023: 2/3 of 4 x hidden size; 10880 is that, down to a multiple of 64.
    assert options.ffn_size == (10880 if activation in ("swiglu", "geglu", "geglu_tanh") else 16384)
    assert ModelOptions(activation=activation, ffn_hidden_size=100).ffn_size == 100


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden_size": 100, "num_attention_heads": 12}, "--hidden-size 100 is not divisible"),
        ({"num_attention_heads": 12, "num_query_groups": 5}, "use 4 groups|use 6 groups"),
        ({"position_embedding_type": "rope", "rotary_percent": 0.49}, "odd width"),
        (
            {
                "position_embedding_type": "relative",
                "relative_attention_num_buckets": 64,
                "relative_attention_max_distance": 32,
            },
            "more than half",
        ),
    ],
)
def test_widths_that_do_not_fit(settings, words):
    with pytest.raises(UserError, match=words):
        ModelOptions(**settings)
    assert ModelOptions(hidden_size=100, num_attention_heads=12, kv_channels=8).head_size == 8
