"""Passes without gradients go around megatron-core's machinery for training and compute the same numbers."""

import pytest
import torch
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import Attention
from megatron.core.transformer.transformer_layer import TransformerLayer

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.data.collate import collate
from megatron.records.example import SequencePair
from tests.oracles.one_process_model import build_decoder, random_sequences, recipe_of

MODELS = {
    "learned positions, biases": {},
    "rotary, grouped keys, normed heads": {
        "position_embedding_type": "rope",
        "num_query_groups": 2,
        "normalization": "RMSNorm",
        "qk_layernorm": True,
        "disable_bias_linear": True,
        "activation": "swiglu",
    },
    "half rotary": {"position_embedding_type": "rope", "rotary_percent": 0.5},
    "relative, untied": {"position_embedding_type": "relative", "untie_embeddings_and_output_weights": True},
}


@pytest.mark.parametrize("architecture", ["causal_decoder", "encoder_decoder"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_numbers_are_those_of_training_to_the_last_bit(architecture, model, dtype, monkeypatch):
    sizes = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "init_method_std": 0.2}
    recipe = recipe_of({**sizes, **MODELS[model]}, max_positions=12, architecture=architecture, lengths=(12, 12))
    _, chunk = build_decoder(recipe, backend="fused_softmax", dtype=dtype)
    chunk.eval()
    torch.manual_seed(0)
    for parameter in chunk.parameters():
        if parameter.dim() == 1:  # biases are drawn as zeros
            torch.nn.init.normal_(parameter)
    rules = RowRules(seq_length=12, decoder_seq_length=12, end_token=0)
    examples = [SequencePair(row[:4], row[4:]) for row in random_sequences(2, 12)]
    batch = collate([ARCHITECTURES[architecture]().arrange([example], rules) for example in examples])
    expected = chunk(batch).detach()

    def too_long(*_, **__):
        raise AssertionError("the long way")

    for core in (TransformerLayer, Attention, ColumnParallelLinear, RowParallelLinear):
        monkeypatch.setattr(core, "forward", too_long)
    with torch.no_grad():
        assert torch.equal(chunk(batch), expected)
    assert expected.std() > 0.1
