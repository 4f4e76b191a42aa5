"""What the layers get of tokens and positions."""

import pytest
import torch

from tests.oracles.one_process_model import batch_of, build_decoder, random_sequences, recipe_of

MODEL = {"num_layers": 1, "hidden_size": 24, "num_attention_heads": 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("architecture", ["causal_decoder", "encoder_decoder"])
@pytest.mark.parametrize("scales", [False, True])
def test_words_are_scaled_and_positions_are_not(scales, architecture, dtype):
    recipe = recipe_of({**MODEL, "scale_embeddings": scales}, max_positions=10, architecture=architecture)
    _, chunk = build_decoder(recipe, dtype=dtype)
    tokens, positions = torch.randint(100, (2, 10)), torch.arange(10).expand(2, 10)
    words, places = (
        table.weight.detach() for table in (chunk.embedding.word_embeddings, chunk.embedding.position_embeddings)
    )
    factor = torch.tensor(24**0.5 if scales else 1.0).to(dtype)
    expected = (words[tokens] * factor + places[positions]).transpose(0, 1)
    assert torch.equal(chunk.embedding(tokens, positions), expected)


def test_a_tied_head_reads_words_as_they_are():
    """The same model with two tables: wide words to read, and those of the table to write."""
    model = {**MODEL, "position_embedding_type": "none"}
    _, tied = build_decoder(recipe_of({**model, "scale_embeddings": True}, max_positions=10))
    _, split = build_decoder(recipe_of({**model, "untie_embeddings_and_output_weights": True}, max_positions=10))
    words = tied.embedding.word_embeddings.weight
    batch = batch_of(random_sequences(2, 10))
    with torch.no_grad():
        split.embedding.word_embeddings.weight.copy_(words * 24**0.5)
        split.output_layer.weight.copy_(words)
        assert torch.allclose(tied(batch), split(batch), atol=1e-6)
