"""Our norms against the textbook in float64."""

import pytest
import torch

from megatron.modeling.norms import Norm
from tests.oracles.one_process_model import build_decoder, recipe_of


def config_of(normalization):
    model = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "normalization": normalization}
    return build_decoder(recipe_of(model, max_positions=4))[0]


@pytest.mark.parametrize("normalization", ["LayerNorm", "RMSNorm"])
def test_norms_are_the_textbooks(normalization):
    norm = Norm(config_of(normalization), 16, eps=1e-3)
    torch.manual_seed(1)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    hidden = torch.randn(5, 3, 16) * 0.05 + 2.0
    wide = hidden.double()
    if normalization == "LayerNorm":
        wide = wide - wide.mean(-1, keepdim=True)
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight.double()
    if normalization == "LayerNorm":
        expected = expected + norm.bias.double()
    assert (norm.bias is None) == (normalization == "RMSNorm")
    assert torch.allclose(norm(hidden).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_weights_say_whether_their_gradients_are_summed(sequence_parallel):
    config = config_of("LayerNorm")
    config.sequence_parallel = sequence_parallel
    norm = Norm(config, 16)
    assert [parameter.sequence_parallel for parameter in norm.parameters()] == [sequence_parallel] * 2
