"""Floating-point operations by formula against torch's counter on the real models."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from megatron.architectures.flops import VisiblePairs, all_pairs, causal_pairs, flops_per_token
from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.architectures.shapes import ModelShape
from megatron.data.collate import collate
from megatron.modeling.options import ModelOptions
from megatron.records.example import SequencePair
from tests.oracles.one_process_model import VOCABULARY, build_decoder, recipe_of

ROWS, INPUTS, TARGETS = 2, 24, 10


def plain_attention(query, key, value, visibility, *, scale, distance_bias, dropout_p=0.0):
    """Computes every score, and thus what the formula counts when every pair is visible."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(repeats, 1) for tensor in (key, value))
    return (query @ key.transpose(-1, -2) * scale).softmax(-1) @ value


def batch_of(architecture):
    rules = RowRules(seq_length=INPUTS, decoder_seq_length=TARGETS, end_token=0)
    tokens = np.arange(1, INPUTS + TARGETS + 1, dtype=np.int32)
    split = INPUTS if architecture.name == "encoder_decoder" else 5
    end = INPUTS + TARGETS if architecture.name == "encoder_decoder" else INPUTS
    example = SequencePair(tokens[:split], tokens[split:end])
    return collate([architecture.arrange([example], rules)] * ROWS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "model",
    [
        {},
        {"num_query_groups": 2, "activation": "swiglu", "position_embedding_type": "rope"},
        {"kv_channels": 12, "untie_embeddings_and_output_weights": True, "ffn_hidden_size": 40},
    ],
    ids=str,
)
def test_flops_are_what_torch_counts(architecture: str, model: dict) -> None:
    model = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, **model}
    if architecture == "encoder_decoder":
        model["decoder_num_layers"] = 3
    recipe = recipe_of(model, max_positions=INPUTS, architecture=architecture, lengths=(INPUTS, TARGETS))
    _, chunk = build_decoder(recipe, attend=plain_attention)
    shape = ModelShape(
        architecture=recipe.architecture,
        model=recipe.model,
        vocabulary_size=VOCABULARY,
        max_positions=INPUTS,
        lengths=(INPUTS, TARGETS),
    )
    batch = batch_of(recipe.architecture)
    with FlopCounterMode(display=False) as counter:
        chunk(batch).sum().backward()
    tokens = ROWS * shape.stream_length
    assert flops_per_token(shape, all_pairs(shape)) * tokens == counter.get_total_flops()


def decoder(model: ModelOptions, length: int, vocabulary_size: int) -> ModelShape:
    return ModelShape(
        architecture=ARCHITECTURES["causal_decoder"](),
        model=model,
        vocabulary_size=vocabulary_size,
        max_positions=length,
        lengths=(length, 0),
    )


def test_a_causal_mask_pays_for_the_scores_that_are_seen() -> None:
    shape = decoder(ModelOptions(num_layers=1, hidden_size=8, num_attention_heads=1), INPUTS, 8)
    seen = sum(query + 1 for query in range(INPUTS))
    causal, nothing = (flops_per_token(shape, pairs) for pairs in (causal_pairs(INPUTS), VisiblePairs(decoder=0)))
    assert causal == nothing + 3 * 2 * 2 * 8 * seen / INPUTS


def test_gpt3_is_a_314_zettaflop_run() -> None:
    # Brown et al. 2020, table D.1: 3.14e23 FLOPs for 300 B tokens (attention scores left out).
    shape = decoder(ModelOptions(num_layers=96, hidden_size=12288, num_attention_heads=96), 2048, 50257)
    assert flops_per_token(shape, VisiblePairs(decoder=0)) * 300e9 == pytest.approx(3.14e23, rel=5e-3)
