"""Fresh weights: what is drawn, how wide, and that shards of them make the whole."""

import dataclasses
import math

import pytest
import torch

from megatron.layout.initial_weights import global_names, shard
from megatron.losses.token_cross_entropy import token_cross_entropy
from tests.oracles.one_process_model import (
    VOCABULARY,
    batch_of,
    build_decoder,
    one_process_grid,
    random_sequences,
    recipe_of,
)

MODEL = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "init_method_std": 0.05,
    "make_vocab_size_divisible_by": 32,
    "untie_embeddings_and_output_weights": True,
}


def weights(seed=1, **changes):
    _, chunk = build_decoder(recipe_of({**MODEL, **changes}, max_positions=32, seed=seed))
    return {name: parameter.detach() for name, parameter in global_names(chunk)}


def test_matrices_are_normal_vectors_are_neutral():
    for name, weight in weights().items():
        if weight.dim() == 1:
            assert (weight == (0.0 if name.endswith("bias") else 1.0)).all(), name
            continue
        std = 0.05 / math.sqrt(8) if name.endswith(("linear_proj.weight", "linear_fc2.weight")) else 0.05
        drawn = weight[:VOCABULARY] if "word_embeddings" in name or "output_layer" in name else weight
        error = 4 / math.sqrt(2 * drawn.numel())  # four standard errors of a sample's standard deviation
        assert float(drawn.std()) == pytest.approx(std, rel=error), name
        assert abs(float(drawn.mean())) < 4 * std / math.sqrt(drawn.numel()), name


def test_norms_of_one_and_a_weight_begin_at_zero():
    plain, centred = weights(), weights(apply_layernorm_1p=True)
    norms = {name for name, weight in centred.items() if weight.dim() == 1}
    assert any("norm.weight" in name for name in norms)
    assert all(not centred[name].any() for name in norms)
    assert all(torch.equal(plain[name], centred[name]) for name in centred.keys() - norms)


def test_every_matrix_has_draws_of_its_own():
    firsts = [float(weight.flatten()[0]) for weight in weights().values() if weight.dim() > 1]
    assert len(firsts) == 4 * 4 + 3
    assert len(set(firsts)) == len(firsts)


def test_seeds_make_models():
    one, again, other = weights(seed=1), weights(seed=1), weights(seed=2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if one[name].dim() > 1)


def test_a_deeper_model_begins_like_a_shallow_one():
    """A weight depends on its name, not on what was drawn before it."""
    name = "decoder.layers.1.mlp.linear_fc1.weight"
    assert torch.equal(weights()[name], weights(num_layers=2)[name])


def test_tied_models_hold_one_table():
    names = weights(untie_embeddings_and_output_weights=False)
    assert "output_layer.weight" not in names
    assert torch.equal(names["embedding.word_embeddings.weight"], weights()["embedding.word_embeddings.weight"])


def test_padding_changes_neither_weights_nor_losses():
    sequences = batch_of(random_sequences(3, 32))
    losses = []
    for multiple in (1, 32, 77, 512):
        for untie in (False, True):
            recipe = recipe_of(
                {**MODEL, "make_vocab_size_divisible_by": multiple, "untie_embeddings_and_output_weights": untie},
                max_positions=32,
            )
            _, chunk = build_decoder(recipe, dtype=torch.float64)
            table = chunk.embedding.word_embeddings.weight
            assert len(table) == -(-VOCABULARY // multiple) * multiple
            assert not table[VOCABULARY:].any() and table[:VOCABULARY].all(-1).any()
            loss = token_cross_entropy(chunk(sequences), sequences, one_process_grid(), vocabulary_size=VOCABULARY)
            losses.append(float(loss.total.detach()))
    assert losses[0::2] == pytest.approx([losses[0]] * 4, rel=1e-7)
    assert losses[1::2] == pytest.approx([losses[1]] * 4, rel=1e-7)


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("dim", [0, 1])
def test_shards_make_the_whole(dim, halves):
    whole = torch.arange(8 * 12).view(8, 12)
    grid = one_process_grid()
    ranks = [dataclasses.replace(grid, tensor_size=2, tensor_rank=rank) for rank in (0, 1)]
    parts = [shard(whole, dim, rank, halves=halves) for rank in ranks]
    if halves:  # each rank holds its part of the gate, then its part of the up projection
        gates, ups = zip(*(part.chunk(2, dim) for part in parts), strict=True)
        assert torch.equal(torch.cat([*gates, *ups], dim), whole)
    else:
        assert torch.equal(torch.cat(parts, dim), whole)
    assert shard(whole, None, ranks[1]) is whole


def test_names_count_layers_through_the_whole_stack():
    _, chunk = build_decoder(recipe_of({**MODEL, "num_layers": 2}, max_positions=32))
    for layer in chunk.decoder.layers:
        layer.layer_number += 5  # as on a later pipeline stage
    names = {name.split(".")[2] for name, _ in global_names(chunk) if name.startswith("decoder.layers")}
    assert names == {"5", "6"}
