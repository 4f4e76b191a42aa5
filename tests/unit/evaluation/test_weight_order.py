"""Weights lie by columns while texts are written, and as before afterwards."""

import pytest
import torch

from megatron.evaluation.weight_order import stored_by_columns
from tests.oracles.one_process_model import batch_of, build_decoder, random_sequences, recipe_of

MODEL = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2}


@pytest.mark.parametrize("untied", [False, True])
def test_matrices_lie_by_columns_inside_alone(untied):
    recipe = recipe_of({**MODEL, "untie_embeddings_and_output_weights": untied}, max_positions=8)
    _, chunk = build_decoder(recipe)
    before = {name: weight.detach().clone() for name, weight in chunk.named_parameters()}
    batch = batch_of(random_sequences(2, 8))
    with torch.no_grad():
        expected = chunk(batch)
        with stored_by_columns([chunk]):
            by_columns = {name for name, weight in chunk.named_parameters() if not weight.is_contiguous()}
            assert torch.allclose(chunk(batch), expected, atol=1e-6)
    head = "output_layer.weight" if untied else "embedding.word_embeddings.weight"
    layers = {"self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2"}
    assert by_columns == {head} | {f"decoder.layers.0.{name}.weight" for name in layers}
    for name, weight in chunk.named_parameters():
        assert weight.is_contiguous() and torch.equal(weight, before[name])
